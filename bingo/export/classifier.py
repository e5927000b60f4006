"""The classifier that a library's network has and a backbone has not."""

from collections.abc import Mapping

import torch
from torch import Tensor


def with_classifier(
    backbone: Mapping[str, Tensor], whole: Mapping[str, Tensor], hidden: str | None = None
) -> dict[str, Tensor]:
    """Add a classifier of zeros, so that a library's network loads the weights strictly.

    It has learnt nothing, and says so: every class gets the same score. Where a hidden layer comes before it, as in
    MobileNetV3, that is the identity, padded with zeros: of two layers of zeros neither would ever get a gradient.

    Args:
        backbone: state dict under the library's names.
        whole: state dict of the library's network; its shapes are used.
        hidden: name of the classifier's hidden layer.

    Returns:
        A state dict with the names, and the shapes, of ``whole``.
    """
    added = {name: torch.zeros(like.shape, dtype=like.dtype) for name, like in whole.items() if name not in backbone}
    if hidden is not None:
        weight = added[f"{hidden}.weight"]
        weight.copy_(torch.eye(*weight.shape[:2]).view(weight.shape))
    return {name: backbone[name] if name in backbone else added[name] for name in whole}
