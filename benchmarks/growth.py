"""Growth of time with the number of images, neighbours, negatives and members of a bag."""

import math
import statistics
import tempfile
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch

from benchmarks.measure import Work, device_name, side_by_side
from bingo.bags.groups import random_bags
from bingo.bags.knn import knn_bags
from bingo.losses.info_nce import info_nce, queue_logsumexp
from bingo.methods.moco import Moco
from bingo.models.backbone import build_backbone
from bingo.philox import Stream, uniform
from bingo.study.sections import Backbone, Preprocessing
from bingo.training.batches import TrainingBatches
from bingo.training.device import pick_device
from bingo.training.embed import embed
from bingo.training.loop import train
from bingo.training.model import TrainingModel
from bingo.training.state import TrainingState
from bingo.training.train_method import MethodTask
from bingo.views.recipes import RECIPES
from tests.noise import Noise

_REPEATS = 3
_IMAGES = (1000, 2000, 5000, 10_000)
_NETWORK = {"architecture": "resnet10", "stem": "small", "width": 0.0625}
_INPUT = Preprocessing(size=28, resize=28)


@dataclass(frozen=True)
class GrowthPoint:
    """The time of one amount of work."""

    what: str
    unit: str
    """Unit of `n`."""
    n: int
    seconds: float
    """Median over repeats."""
    seconds_per_n: float
    exponent: float
    """Exponent of the power law fitted to all amounts: 1 is linear, 0 is constant."""
    goal: str
    """Aim for `exponent`."""
    device: str
    repeats: int = _REPEATS


def embedding(count: int) -> Work:
    """Compute the features of ``count`` images."""
    device, images = pick_device(), Noise(count, 28)
    network = build_backbone(Backbone.model_validate(_NETWORK)).to(device).eval()
    return lambda: deque(embed(network, images, _INPUT, device, 0, "bilinear"), maxlen=0)


def neighbours(count: int, size: int) -> Work:
    """Search the neighbours of ``count`` images."""
    features = uniform(0, Stream.VIEW, range(count), 0, 0, 512).astype(np.float32) - 0.5
    return lambda: knn_bags(features, size)


def epoch(count: int) -> Work:
    """Train for one epoch on ``count`` images."""
    training = {"epochs": 1, "batch_size": 50, "views": "small"}
    method = Moco.model_validate(
        {"method": "moco", "backbone": _NETWORK, "training": training, "queue_size": 1024, "head": {"dim": 32}}
    )
    device, images = pick_device(), Noise(count, 28)

    def work() -> None:
        data = TrainingBatches(images, method.views(), RECIPES["small"], _INPUT, 50, 0, None)
        with tempfile.TemporaryDirectory() as folder:
            state = TrainingState(Path(folder, "state.pt"), "")
            with state.exclusively():
                task = MethodTask(TrainingModel(method, None).to(device), data, method.training, device)
                train(task, state, 0, "noise")

    return work


def loss(negatives: int) -> Work:
    """Compute the loss of 256 images and its gradient four times."""
    device = pick_device()
    generator = torch.Generator().manual_seed(0)
    query, key, queue = (
        torch.nn.functional.normalize(torch.randn(rows, 128, generator=generator)).to(device)
        for rows in (256, 256, negatives)
    )
    query.requires_grad_()

    def work() -> None:
        for _ in range(4):
            torch.autograd.grad(info_nce(query, key, queue_logsumexp(query, queue, 0.2), 0.2), query)

    return work


def drawing(size: int) -> Work:
    """Draw members of the bags of 200 batches of 256 images each."""
    bags = random_bags(200_000, size, 0)
    anchors = np.random.default_rng(0).integers(200_000, size=(200, 256))
    return lambda: [bags.draw(batch, 0, 1) for batch in anchors]


def rows() -> Iterator[GrowthPoint]:
    """Measure all kinds of work."""
    yield from line("embed", "images", _IMAGES, embedding, "1")
    yield from line("bags", "images", _IMAGES, partial(neighbours, size=5), "<= 2")
    yield from line("epoch", "images", _IMAGES, epoch, "1")
    yield from line("bags-k", "neighbours", (1, 5, 20, 50, 100, 200), partial(neighbours, 10_000), "<= 1")
    yield from line("loss", "negatives", (1024, 4096, 16_384, 65_536), loss, "<= 1")
    yield from line("draw", "members of a bag", (1, 10, 100, 1000, 10_000), drawing, "0")


def line(
    what: str, unit: str, amounts: tuple[int, ...], prepare: Callable[[int], Work], goal: str
) -> list[GrowthPoint]:
    """Time the work that ``prepare`` returns for each amount."""
    prepare(amounts[0])()  # warm up
    times = side_by_side({str(n): prepare(n) for n in amounts}, _REPEATS, pick_device(), warm=True).times
    seconds = [statistics.median(times[str(n)]) for n in amounts]
    exponent = power(amounts, seconds)
    device = device_name()
    return [
        GrowthPoint(what, unit, n, value, value / n, exponent, goal, device)
        for n, value in zip(amounts, seconds, strict=True)
    ]


def power(amounts: tuple[int, ...], seconds: list[float]) -> float:
    """Return the exponent of the power law ``seconds ~ amounts ** exponent``, by least squares of logarithms."""
    return statistics.linear_regression([math.log(n) for n in amounts], [math.log(value) for value in seconds]).slope
