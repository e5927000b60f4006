"""Projection heads."""

from collections.abc import Callable, Mapping, Sequence

from torch import Tensor, nn

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {"relu": nn.ReLU, "gelu": nn.GELU}


def mlp_head(features: int, widths: Sequence[int]) -> nn.Sequential:
    """Return linear layers with ReLU between them: (B, features) to (B, widths[-1]).

    Args:
        features: width of the backbone's features.
        widths: output width of each layer; empty for an identity head.
    """
    layers: list[nn.Module] = []
    for width in widths:
        layers += [nn.Linear(features, width), nn.ReLU(inplace=True)]
        features = width
    return nn.Sequential(*layers[:-1])


def head_from(state: Mapping[str, Tensor], activation: str) -> nn.Sequential:
    """Build a head to match a state dict with the names of an `nn.Sequential` (``0.weight``); does not load it.

    A 2-D weight is a linear layer, running statistics are a batch norm, and an index without tensors is an activation.

    Args:
        state: state dict of the head; empty for an identity head.
        activation: ``relu`` or ``gelu``.

    Raises:
        ValueError: a name does not start with an index, or a layer is neither linear nor batch norm.
    """
    indices = sorted({int(name.partition(".")[0]) for name in state})
    layers: list[nn.Module] = []
    for index in range(indices[-1] + 1 if indices else 0):
        weight, mean = state.get(f"{index}.weight"), state.get(f"{index}.running_mean")
        if mean is not None:
            layers.append(nn.BatchNorm1d(len(mean), affine=weight is not None))
        elif weight is not None and weight.ndim == 2:
            layers.append(nn.Linear(weight.shape[1], weight.shape[0], bias=f"{index}.bias" in state))
        elif index in indices:
            raise ValueError(f"layer {index} is neither linear nor batch norm")
        else:
            layers.append(ACTIVATIONS[activation]())
    return nn.Sequential(*layers)


def output_width(head: nn.Sequential, features: int) -> int:
    """Return the width of a head's output for inputs of width ``features``."""
    linear = [layer for layer in head if isinstance(layer, nn.Linear)]
    return linear[-1].out_features if linear else features
