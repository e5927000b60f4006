"""Accuracy of ranked predictions."""

import torch
from torch import Tensor


def accuracy(scores: Tensor, labels: Tensor) -> dict[str, float]:
    """Return top-1 and top-5 accuracy in percent; top-5 only where there are more than five classes.

    Args:
        scores: (N, C), larger is more likely.
        labels: (N,) int64 in [0, C).
    """
    kept = [k for k in (1, 5) if k == 1 or scores.shape[1] > k]
    ranked = scores.topk(max(kept), dim=1).indices == labels[:, None]  # (N, k)
    return {f"top{k}": 100 * float(ranked[:, :k].any(1).double().mean()) for k in kept}


def one_hot_votes(labels: Tensor, weights: Tensor, classes: int) -> Tensor:
    """Return (N, classes): for each row the sum of ``weights`` (N, k) over the neighbours' ``labels`` (N, k)."""
    return torch.zeros(len(labels), classes, dtype=weights.dtype).scatter_add_(1, labels, weights)
