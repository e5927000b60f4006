"""The eight learning rates of the protocol `linear-cached`, trained together and in eight separate runs."""

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor, nn

from benchmarks.measure import BenchmarkRow, device_name, side_by_side
from bingo.evaluation.linear import LinearHeads, cached_batches, train_linear
from bingo.study.protocols import PROTOCOLS, LinearSweep
from bingo.training.device import pick_device
from bingo.training.schedule import learning_rate

_EPOCHS, _IMAGES, _DIM = 5, 10_000, 512


def protocol() -> LinearSweep:
    """Return the protocol `linear-cached`."""
    sweep = PROTOCOLS["linear-cached"]
    assert isinstance(sweep, LinearSweep)
    return sweep


def clustered(classes: int, count: int = _IMAGES, dim: int = _DIM) -> tuple[Tensor, Tensor]:
    """Return standardised, clustered features (count, dim) and their labels (count,)."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(classes, (count,), generator=generator)
    features = torch.randn(classes, dim, generator=generator)[labels] / 4
    features += torch.randn(count, dim, generator=generator)
    return (features - features.mean(0)) / features.std(0), labels


def side_by_side_heads(features: Tensor, labels: Tensor, classes: int, epochs: int) -> LinearHeads:
    """Train all classifiers together, as the evaluation stage does."""
    lrs, batch = protocol().lrs, protocol().batch_size
    return train_linear(
        cached_batches(features, labels, batch, seed=0),
        features.shape[1],
        classes,
        0,
        lambda epoch: [learning_rate("cosine", lr, epoch, epochs) for lr in lrs],
        epochs,
        weight_decay=0.0,
        device=features.device,
    )


def run_of_its_own(features: Tensor, labels: Tensor, start: Tensor, lr: float, epochs: int) -> nn.Linear:
    """Train one classifier from the weights ``start`` (C, D) with PyTorch's layer, loss, optimizer and schedule."""
    layer = nn.Linear(start.shape[1], start.shape[0], device=features.device)
    nn.init.zeros_(layer.bias)
    with torch.no_grad():
        layer.weight.copy_(start)
    criterion = nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(layer.parameters(), lr=lr, momentum=0.9)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=epochs)
    generator = torch.Generator().manual_seed(0)
    for _ in range(epochs):
        order = torch.randperm(len(features), generator=generator).to(features.device)
        for rows in order.split(protocol().batch_size):
            loss = criterion(layer(features.index_select(0, rows)), labels.index_select(0, rows))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        schedule.step()
    return layer


def separate_runs(features: Tensor, labels: Tensor, classes: int, epochs: int) -> list[nn.Linear]:
    """Train one classifier per learning rate, one after the other."""
    start = torch.empty(classes, features.shape[1]).normal_(std=0.01)
    return [run_of_its_own(features, labels, start, lr, epochs) for lr in protocol().lrs]


def rows() -> Iterator[BenchmarkRow]:
    """Measure epochs of all eight classifiers per second, with 10 and with 100 classes."""
    device = pick_device()
    for benchmark, classes, goal in (("linear", 10, "ratio >= 4"), ("linear-100-classes", 100, "")):
        features, labels = (tensor.to(device) for tensor in clustered(classes))
        work = {
            "ours": partial(side_by_side_heads, features, labels, classes, _EPOCHS),
            "reference": partial(separate_runs, features, labels, classes, _EPOCHS),
        }
        yield side_by_side(work, 5, device).row(benchmark, "epochs/s", device_name(device), _EPOCHS, goal)
