"""k-nearest-neighbour classification of frozen features."""

import numpy as np
import torch
from torch import Tensor

from bingo.errors import BingoError
from bingo.evaluation.metrics import accuracy, one_hot_votes
from bingo.evaluation.protocols import Knn
from bingo.neighbours import nearest_neighbours, normalise_rows


def knn_accuracy(
    protocol: Knn, train: Tensor, train_labels: Tensor, val: Tensor, val_labels: Tensor, classes: int
) -> dict[str, float]:
    """Return the top-1 accuracy of a majority vote among the ``k`` most similar training images.

    No top-5: classes that got no vote have no order.

    Args:
        protocol: names k.
        train: (N, D) float32 features.
        train_labels: (N,) int64 in [0, classes).
        val: (M, D) float32 features.
        val_labels: (M,) int64 in [0, classes).
        classes: number of classes.

    Raises:
        BingoError: there are fewer than k training images.
    """
    if len(train) < protocol.k:
        raise BingoError(f"evaluations: knn-{protocol.k} needs {protocol.k} labelled images, there are {len(train)}")
    bank, queries = train.numpy().copy(), val.numpy().copy()
    normalise_rows(bank)
    normalise_rows(queries)
    scores = []
    for _, similarity, index in nearest_neighbours(queries, bank, protocol.k):
        labels = train_labels[torch.from_numpy(index)]  # (b, k)
        # A vote counts 1; what similarity adds stays within 1/2 in sum, so it only decides between equal counts.
        weights = 1 + torch.from_numpy(similarity.astype(np.float64)) / (2 * protocol.k + 1)
        scores.append(one_hot_votes(labels, weights, classes))
    return {"top1": accuracy(torch.cat(scores), val_labels)["top1"]}
