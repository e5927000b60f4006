"""Projection heads."""

from collections.abc import Callable, Mapping, Sequence

from torch import Tensor, nn

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {"relu": nn.ReLU, "gelu": nn.GELU}


def mlp_head(features: int, widths: Sequence[int]) -> nn.Sequential:
    """Return linear layers with ReLU between them: (B, features) to (B, last of widths).

    Args:
        features: width of the backbone's output.
        widths: width of each layer's output; none gives a head that changes nothing.
    """
    layers: list[nn.Module] = []
    for width in widths:
        layers += [nn.Linear(features, width), nn.ReLU(inplace=True)]
        features = width
    return nn.Sequential(*layers[:-1])


def head_from(state: Mapping[str, Tensor], activation: str) -> nn.Sequential:
    """Return a head for weights under the names of a Sequential, ``0.weight`` say, not yet filled.

    A weight of two dimensions is a linear layer, running statistics are a batch-norm, and a number without weights is
    an activation.

    Args:
        state: names and tensors of the head; empty for a head that changes nothing.
        activation: ``relu`` or ``gelu``.

    Raises:
        ValueError: a name is not of that form.
    """
    places = sorted({int(name.partition(".")[0]) for name in state})
    layers: list[nn.Module] = []
    for place in range(places[-1] + 1 if places else 0):
        weight, mean = state.get(f"{place}.weight"), state.get(f"{place}.running_mean")
        if mean is not None:
            layers.append(nn.BatchNorm1d(len(mean), affine=weight is not None))
        elif weight is not None and weight.ndim == 2:
            layers.append(nn.Linear(weight.shape[1], weight.shape[0], bias=f"{place}.bias" in state))
        elif place in places:
            raise ValueError(f"layer {place} is neither linear nor a batch-norm")
        else:
            layers.append(ACTIVATIONS[activation]())
    return nn.Sequential(*layers)


def output_width(head: nn.Sequential, features: int) -> int:
    """Return the width of a head's output, for features of width ``features``."""
    linear = [layer for layer in head if isinstance(layer, nn.Linear)]
    return linear[-1].out_features if linear else features
