"""The classifier that a library's network needs in addition to the backbone."""

from collections.abc import Mapping

import torch
from torch import Tensor


def with_classifier(
    backbone: Mapping[str, Tensor], library_state: Mapping[str, Tensor], hidden: str | None = None
) -> dict[str, Tensor]:
    """Add a classifier of zeros, so that a library's network loads the weights strictly.

    The classifier is untrained and gives every class the same score. A hidden layer before it, as in MobileNetV3, is
    the identity padded with zeros, because two layers of zeros would never receive a gradient.

    Args:
        backbone: state dict of the backbone under the library's names.
        library_state: state dict of the library's network, for its names and shapes.
        hidden: name of the classifier's hidden layer, if any.

    Returns:
        A state dict with the names, and the shapes, of ``library_state``.
    """
    added = {
        name: torch.zeros(like.shape, dtype=like.dtype) for name, like in library_state.items() if name not in backbone
    }
    if hidden is not None:
        weight = added[f"{hidden}.weight"]
        weight.copy_(torch.eye(*weight.shape[:2]).view(weight.shape))
    return {name: backbone[name] if name in backbone else added[name] for name in library_state}
