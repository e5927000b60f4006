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
    """Classify the validation images by their nearest neighbours among the training images."""
    train, val = probe.train_features(protocol.interpolation), probe.val_features(protocol.interpolation)
    if not is_first():
        return Measurement({})
    return Measurement(knn_accuracy(protocol, train, probe.train_labels, val, probe.val_labels, probe.classes))


def knn_accuracy(
    protocol: Knn, train: Tensor, train_labels: Tensor, val: Tensor, val_labels: Tensor, classes: int
) -> dict[str, float]:
    """Return top-1 and, for k > 1, top-5 accuracy of a vote among the k most similar training images.

    A class without votes is never a prediction.

    Args:
        protocol: k and the temperature of the votes.
        train: (N, D) float32 features.
        train_labels: (N,) int64 in [0, C).
        val: (M, D) float32 features.
        val_labels: (M,) int64 in [0, C).
        classes: number of classes C.

    Raises:
        BingoError: there are fewer than k training images.
    """
    if len(train) < protocol.k:
        raise BingoError(
            f"evaluations: kNN needs at least k = {protocol.k} labelled training images, but there are {len(train)}; "
            "choose a smaller k"
        )
    scores = []
    for _, cosine, index in nearest_neighbours(UnitRows(val.numpy()), UnitRows(train.numpy()), protocol.k):
        similarity = torch.from_numpy(cosine.astype(np.float64))  # (b, k)
        labels = train_labels[torch.from_numpy(index)]  # (b, k)
        if protocol.temperature is None:
            weights = majority_weights(similarity)
        else:
            weights = (similarity / protocol.temperature).exp()
        scores.append(class_votes(labels, weights, classes))  # (b, C)
    accuracies = accuracy(torch.cat(scores), val_labels)
    return accuracies if protocol.k > 1 else {"top1": accuracies["top1"]}
