import pytest
import torch
from torch import nn

from bingo.models.head import head_from, mlp_head, output_width


def test_head_is_linear_relu_linear():
    head = mlp_head(6, [5, 3])
    features = torch.randn(4, 6)
    weights = head.state_dict()
    hidden = (features @ weights["0.weight"].T + weights["0.bias"]).clamp(min=0)
    expected = hidden @ weights["2.weight"].T + weights["2.bias"]
    torch.testing.assert_close(head(features.clone()), expected)
    assert {name: tuple(value.shape) for name, value in weights.items()} == {
        "0.weight": (5, 6),
        "0.bias": (5,),
        "2.weight": (3, 5),
        "2.bias": (3,),
    }


def test_a_head_of_one_width_is_linear_and_one_of_none_changes_nothing():
    features = torch.randn(4, 6)
    single = mlp_head(6, [3])
    torch.testing.assert_close(single(features), features @ single[0].weight.T + single[0].bias)
    assert mlp_head(6, [])(features) is features
    assert mlp_head(6, []).state_dict() == {}


@pytest.mark.parametrize(("widths", "expected"), [([], 6), ([3], 3), ([5, 3], 3), ([5, 4, 7], 7)])
def test_the_output_width_is_that_of_the_last_linear_layer_or_of_the_features(widths, expected):
    head = mlp_head(6, widths)
    assert output_width(head, 6) == expected
    assert head(torch.randn(2, 6)).shape == (2, expected)
    assert output_width(nn.Sequential(*head, nn.BatchNorm1d(expected)), 6) == expected


@pytest.mark.parametrize("widths", [[], [3], [5, 3], [5, 4, 7]])
def test_a_head_is_built_again_from_its_own_weights(widths):
    head = mlp_head(6, widths)
    again = head_from(head.state_dict(), "relu")
    again.load_state_dict(head.state_dict(), strict=True)
    features = torch.randn(4, 6)
    assert torch.equal(again(features.clone()), head(features.clone()))
    assert [type(layer) for layer in again] == [type(layer) for layer in head]


def test_layers_are_told_by_the_names_and_shapes_of_their_weights():
    state = nn.Sequential(
        nn.Linear(6, 5, bias=False), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, 3), nn.BatchNorm1d(3, affine=False)
    ).state_dict()
    for activation, kind in (("relu", nn.ReLU), ("gelu", nn.GELU)):
        head = head_from(state, activation)
        assert [type(layer) for layer in head] == [nn.Linear, nn.BatchNorm1d, kind, nn.Linear, nn.BatchNorm1d]
        assert (head[0].in_features, head[0].out_features, head[0].bias) == (6, 5, None)
        assert (head[3].in_features, head[3].out_features) == (5, 3)
        assert (head[1].affine, head[4].affine) == (True, False)
        head.load_state_dict(state, strict=True)


def test_the_order_of_names_is_that_of_their_numbers():
    layers = [layer for _ in range(6) for layer in (nn.Linear(2, 2), nn.ReLU())][:-1]
    head = nn.Sequential(*layers)  # up to "10.weight", which as text comes before "2.weight"
    state = dict(sorted(head.state_dict().items()))
    again = head_from(state, "relu")
    again.load_state_dict(state)
    features = torch.randn(3, 2)
    assert torch.equal(again(features), head(features))


@pytest.mark.parametrize(
    ("state", "activation", "error"),
    [
        ({"0.weight": torch.ones(2)}, "relu", ValueError),
        ({"0.weight": torch.ones(2, 2, 1, 1)}, "relu", ValueError),
        ({"0.bias": torch.ones(2)}, "relu", ValueError),
        ({"fc.weight": torch.ones(2, 2)}, "relu", ValueError),
        ({"0.weight": torch.ones(2, 2), "2.weight": torch.ones(2, 2)}, "swish", KeyError),
    ],
)
def test_weights_of_another_form_are_refused(state, activation, error):
    with pytest.raises(error):
        head_from(state, activation)
