"""k-nearest-neighbour classification of frozen features."""

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor

from bingo.bags.neighbours import UnitRows, nearest_neighbours
from bingo.errors import BingoError
from bingo.evaluation.metrics import accuracy, votes
from bingo.evaluation.probe import Measurement, Probe
from bingo.study.protocols import Knn
from bingo.training.distributed import is_first


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
    blocks = nearest_neighbours(UnitRows(val.numpy()), UnitRows(train.numpy()), protocol.k)
    found = (
        (torch.from_numpy(similarity.astype(np.float64)), torch.from_numpy(index)) for _, similarity, index in blocks
    )
    return vote_accuracy(protocol, found, train_labels, val_labels, classes)


def vote_accuracy(
    protocol: Knn, found: Iterable[tuple[Tensor, Tensor]], train_labels: Tensor, val_labels: Tensor, classes: int
) -> dict[str, float]:
    """Return what `knn_accuracy` does, of neighbours that are already found.

    Args:
        protocol: names k, and the temperature of the votes.
        found: block after block of the validation images, similarity float64 (b, k) and position int64 (b, k) of each
            one's neighbours.
        train_labels: (N,) int64 in [0, classes).
        val_labels: (M,) int64 in [0, classes).
        classes: number of classes.
    """
    scores = [votes(train_labels[index], _weights(protocol, similarity), classes) for similarity, index in found]
    accuracies = accuracy(torch.cat(scores), val_labels)
    return accuracies if protocol.k > 1 else {"top1": accuracies["top1"]}


def _weights(protocol: Knn, similarity: Tensor) -> Tensor:
    """Return how much each neighbour's vote counts, from its ``similarity`` (b, k)."""
    if protocol.temperature is not None:
        return (similarity / protocol.temperature).exp()
    # A vote counts 1; what similarity adds stays within 1/2 in sum, so it only decides between equal counts.
    return 1 + similarity / (2 * protocol.k + 1)
