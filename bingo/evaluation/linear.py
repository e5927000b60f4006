"""Linear classification of frozen features."""

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bingo.errors import BingoError
from bingo.evaluation.metrics import accuracy
from bingo.evaluation.protocols import Linear
from bingo.philox import Stream, permutation
from bingo.progress import Progress

FeatureBatches = Callable[[int], Iterator[tuple[Tensor, Tensor]]]


def cached_batches(features: Tensor, labels: Tensor, batch_size: int, seed: int) -> FeatureBatches:
    """Return a function from epoch to batches of fixed ``features`` (N, D) and ``labels`` (N,), in random order."""

    def batches(epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        order = torch.from_numpy(permutation(seed, Stream.ORDER, epoch, len(features)))
        for rows in order.split(batch_size):
            yield features[rows], labels[rows]

    return batches


def train_linear(protocol: Linear, batches: FeatureBatches, dim: int, classes: int, seed: int) -> nn.Linear:
    """Train a linear classifier as the protocol says.

    Args:
        protocol: hyper-parameters.
        batches: from epoch to (features (B, dim), labels (B,)) batches, all on one device.
        dim: width of the features.
        classes: number of classes.
        seed: seed of the initial weights.

    Raises:
        BingoError: the weights are not finite at the end.
    """
    generator = torch.Generator().manual_seed(seed)
    classifier = nn.Linear(dim, classes)
    nn.init.normal_(classifier.weight, std=0.01, generator=generator)
    nn.init.zeros_(classifier.bias)
    optimizer: torch.optim.SGD | None = None
    lr = protocol.lr
    with Progress("linear classifier", protocol.epochs, "epochs") as progress:
        for epoch in range(protocol.epochs):
            lr = lr * protocol.decay if epoch in protocol.milestones else lr
            for features, labels in batches(epoch):
                if optimizer is None:
                    classifier.to(features.device)
                    optimizer = torch.optim.SGD(
                        classifier.parameters(), lr, momentum=0.9, weight_decay=protocol.weight_decay
                    )
                optimizer.param_groups[0]["lr"] = lr
                optimizer.zero_grad(set_to_none=True)
                F.cross_entropy(classifier(features), labels).backward()
                optimizer.step()
            progress.advance(1)
    if not classifier.weight.isfinite().all():
        raise BingoError("evaluations: the linear classifier diverged; its features are far too large")
    return classifier


def standardiser(features: Tensor) -> Callable[[Tensor], Tensor]:
    """Return the map that gives each of ``features``' (N, D) columns zero mean and unit variance.

    A column that never varies is only shifted.
    """
    mean, std = features.mean(0), features.std(0)
    # Not std > 0: rounding gives a constant column a mean beside its value, and so a tiny deviation.
    varies = (features != features[0]).any(0)
    mean = torch.where(varies, mean, features[0])
    scale = torch.where(varies, std, torch.ones_like(std))
    return lambda values: (values - mean) / scale


@torch.inference_mode()
def linear_accuracy(classifier: nn.Linear, features: Tensor, labels: Tensor) -> dict[str, float]:
    """Return top-1 and top-5 of a classifier on ``features`` (N, D), ``labels`` (N,)."""
    return accuracy(classifier(features.to(classifier.weight.device)).cpu(), labels)
