"""k-nearest-neighbour classification of frozen features."""

import numpy as np
import torch
from torch import Tensor

from bingo.bags.neighbours import UnitRows, nearest_neighbours
from bingo.errors import BingoError
from bingo.evaluation.probe import Measurement, Probe
from bingo.study.protocols import Knn
from bingo.training.distributed import is_first
from bingo.training.metrics import accuracy, class_votes, majority_weights


def evaluate_knn(protocol: Knn, probe: Probe) -> Measurement:
    """Classify the validation images by their neighbours among the training images."""
    train, val = probe.train_features(protocol.interpolation), probe.val_features(protocol.interpolation)
    if not is_first():
        return Measurement({})
    return Measurement(knn_accuracy(protocol, train, probe.train_labels, val, probe.val_labels, probe.classes))


def knn_accuracy(
    protocol: Knn, train: Tensor, train_labels: Tensor, val: Tensor, val_labels: Tensor, classes: int
) -> dict[str, float]:
    """Return top-1 and top-5 of a vote among the ``k`` most similar training images.

    A class that got no vote is not among the first five; a single neighbour ranks no five classes, so there is no
    top-5 then.

    Args:
        protocol: names k, and the temperature of the votes.
        train: (N, D) float32 features.
        train_labels: (N,) int64 in [0, classes).
        val: (M, D) float32 features.
        val_labels: (M,) int64 in [0, classes).
        classes: number of classes.

    Raises:
        BingoError: there are fewer than k training images.
    """
    if len(train) < protocol.k:
        raise BingoError(f"evaluations: kNN with k {protocol.k} needs as many labelled images, there are {len(train)}")
    scores = []
    for _, found, index in nearest_neighbours(UnitRows(val.numpy()), UnitRows(train.numpy()), protocol.k):
        similarity, labels = torch.from_numpy(found.astype(np.float64)), train_labels[torch.from_numpy(index)]
        if protocol.temperature is None:
            weights = majority_weights(similarity)
        else:
            weights = (similarity / protocol.temperature).exp()
        scores.append(class_votes(labels, weights, classes))
    accuracies = accuracy(torch.cat(scores), val_labels)
    return accuracies if protocol.k > 1 else {"top1": accuracies["top1"]}
