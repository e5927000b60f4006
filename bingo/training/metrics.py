"""Accuracy of ranked predictions."""

import torch
from torch import Tensor


def accuracy(scores: Tensor, labels: Tensor) -> dict[str, float]:
    """Return top-1 and, for more than five classes, top-5 accuracy in percent.

    Args:
        scores: (N, C), larger is more likely; a class with score -inf is never a prediction.
        labels: (N,) int64 in [0, C).
    """
    ks = [k for k in (1, 5) if k == 1 or scores.shape[1] > k]
    best = scores.topk(max(ks), dim=1)
    correct = (best.indices == labels[:, None]) & (best.values > -torch.inf)  # (N, k)
    return {f"top{k}": 100 * float(correct[:, :k].any(1).double().mean()) for k in ks}


def majority_weights(similarity: Tensor) -> Tensor:
    """Return the weights (N, k) of k neighbours for a majority vote, from their cosine ``similarity`` (N, k).

    Each vote counts 1. The similarities add less than 1/2 in total, so they only break ties.
    """
    return 1 + similarity / (2 * similarity.shape[1] + 1)


def class_votes(labels: Tensor, weights: Tensor, classes: int) -> Tensor:
    """Return the score of each class, (N, C): the sum of the ``weights`` of its neighbours, -inf if it has none.

    Args:
        labels: (N, k) int64, labels of the neighbours.
        weights: (N, k), weights of their votes.
        classes: number of classes C.
    """
    sums = torch.zeros(len(labels), classes, dtype=weights.dtype).scatter_add_(1, labels, weights)  # (N, C)
    voted = torch.zeros(len(labels), classes, dtype=torch.bool).scatter_(1, labels, True)  # (N, C)
    return sums.masked_fill(~voted, -torch.inf)
