import torch

from bingo.models.head import mlp_head


def test_head_is_linear_relu_linear():
    head = mlp_head(6, 5, 3)
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
