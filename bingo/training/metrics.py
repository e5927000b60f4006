"""Accuracy of ranked predictions."""

import torch
from torch import Tensor


def accuracy(scores: Tensor, labels: Tensor) -> dict[str, float]:
    """Return top-1 and top-5 accuracy in percent; top-5 only where there are more than five classes.

    Args:
        scores: (N, C), larger is more likely; a class of -inf is never among the best.
        labels: (N,) int64 in [0, C).
    """
    kept = [k for k in (1, 5) if k == 1 or scores.shape[1] > k]
    best = scores.topk(max(kept), dim=1)
    hits = (best.indices == labels[:, None]) & (best.values > -torch.inf)  # (N, k)
    return {f"top{k}": 100 * float(hits[:, :k].any(1).double().mean()) for k in kept}


def majority_weights(similarity: Tensor) -> Tensor:
    """Return how much each of k neighbours' votes counts, from its ``similarity`` (N, k): the nearer, a bit more.

    A vote counts 1; what similarity adds stays within 1/2 in sum, so it only decides between equal counts.
    """
    return 1 + similarity / (2 * similarity.shape[1] + 1)


def class_votes(labels: Tensor, weights: Tensor, classes: int) -> Tensor:
    """Return (N, classes): for each row the sum of ``weights`` (N, k) over the neighbours' ``labels`` (N, k).

    A class without a vote has -inf.
    """
    sums = torch.zeros(len(labels), classes, dtype=weights.dtype).scatter_add_(1, labels, weights)
    voted = torch.zeros(len(labels), classes, dtype=torch.bool).scatter_(1, labels, True)
    return sums.masked_fill(~voted, -torch.inf)
