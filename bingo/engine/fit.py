"""From a method and its inputs to a trained learner: what the teacher and the student stage share."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from bingo.artifacts import digest_json, provenance
from bingo.bags.bags import Bags
from bingo.data.images import open_images
from bingo.data.listing import Listing
from bingo.data.loader import TrainingBatches
from bingo.engine.device import describe
from bingo.engine.learner import Learner, TeacherOutputs
from bingo.engine.state import Row, TrainingState
from bingo.engine.train import train
from bingo.methods.method import Method
from bingo.sections import NetworkInput
from bingo.views.recipes import RECIPES


@dataclass(frozen=True)
class Sources:
    """What a method is trained from."""

    listing: Listing
    inputs: Mapping[str, str]
    """Name and digest of each input."""
    teacher: TeacherOutputs | None = None
    bags: Bags | None = None
    stored: int | None = None
    """Number of stored teacher views, None for a teacher that runs in training."""


@dataclass(frozen=True)
class Run:
    """A finished training."""

    learner: Learner
    rows: list[Row]
    """One per epoch."""
    provenance: dict[str, Any]


@contextmanager
def fitted(
    method: Method,
    preprocessing: NetworkInput,
    seed: int,
    sources: Sources,
    origin: tuple[str, int, dict[str, Any]],
    state_path: Path,
    title: str,
    device: torch.device,
    workers: int,
) -> Iterator[Run]:
    """Train a method, going on from a state of the same settings and inputs, and yield the result.

    The state is removed when the block, which writes the result, ends well.

    Args:
        method: settings of the method.
        preprocessing: size and normalisation of views.
        seed: seed of initial weights, order, positives and the student's views.
        sources: what it is trained from.
        origin: stage, its version, and the settings that it was given, for the provenance.
        state_path: where the state is kept between epochs.
        title: name for progress lines.
        device: where to train.
        workers: loader processes.

    Raises:
        BingoError: an input is damaged, or the loss is not finite.
    """
    stage, version, settings = origin
    machine = describe(method.training, device)
    state = TrainingState(state_path, digest_json([settings, dict(sources.inputs), machine]))
    torch.manual_seed(seed)  # initial weights; nothing later draws from it
    learner = Learner(method, sources.teacher)
    data = TrainingBatches(
        open_images(sources.listing),
        method.views(),
        RECIPES[method.training.views],
        preprocessing,
        method.training.batch_size,
        seed,
        sources.bags,
        sources.stored,
    )
    with state.exclusively():
        rows = train(learner, data, method.training, state, device, workers, title)
        yield Run(learner, rows, provenance(stage, version, settings, sources.inputs, seed=seed, **machine))
        state.discard()
