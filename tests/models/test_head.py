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


@pytest.mark.parametrize(("widths", "expected"), [([], 6), ([3], 3), ([5, 3], 3), ([5, 4, 7], 7)])
def test_a_head_is_built_again_from_its_own_weights(widths, expected):
    head, features = mlp_head(6, widths), torch.randn(4, 6)
    again = head_from(head.state_dict(), "relu")
    again.load_state_dict(head.state_dict(), strict=True)
    assert torch.equal(again(features.clone()), head(features.clone()))
    assert head(features.clone()).shape == (4, expected)
    assert output_width(head, 6) == output_width(nn.Sequential(*head, nn.BatchNorm1d(expected)), 6) == expected
