"""From a method and its inputs to a trained learner: what the teacher and the student stage share."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from bingo.artifacts.provenance import digest_json, provenance
from bingo.bags.bags import Bags
from bingo.data.images import open_images
from bingo.data.listing import Listing
from bingo.errors import BingoError
from bingo.models.backbone import require_size
from bingo.models.batch_norm import synchronise_batch_norm
from bingo.study.method import Method
from bingo.study.sections import NetworkInput
from bingo.training.batches import TrainingBatches
from bingo.training.device import describe_device, describe_machine
from bingo.training.distributed import is_first, processes, rank
from bingo.training.loop import train
from bingo.training.model import Learner, TeacherOutputs
from bingo.training.monitor import Watch
from bingo.training.state import Row, TrainingState
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
    summary: str
    """What came of it, in a line."""


@dataclass(frozen=True)
class Origin:
    """Who trains, for the provenance."""

    stage: str
    version: int
    settings: dict[str, Any]


@contextmanager
def trained(
    method: Method,
    preprocessing: NetworkInput,
    seed: int,
    sources: Sources,
    origin: Origin,
    state_path: Path,
    title: str,
    device: torch.device,
    workers: int,
    events: Path | None = None,
) -> Iterator[Run | None]:
    """Train a method, going on from a state of the same settings and inputs, and yield the result.

    The state is removed when the block, which writes the result, ends well. Of several processes the first one gets
    the result, the others None.

    Args:
        method: settings of the method.
        preprocessing: size and normalisation of views.
        seed: seed of initial weights, order, positives and the student's views.
        sources: what it is trained from.
        origin: stage, its version, and the settings that it was given.
        state_path: where the state is kept between epochs.
        title: name for progress lines.
        device: where to train.
        workers: loader processes.
        events: folder for TensorBoard's events; None to write none.

    Raises:
        BingoError: an input is damaged, the loss is not finite, or the processes cannot share a batch equally.
    """
    if method.training.batch_size % processes():
        raise BingoError(
            f"{title}: batch_size {method.training.batch_size} cannot be shared by {processes()} processes; "
            f"take a multiple of {processes()}"
        )
    machine = describe_machine(method.training, device)
    state = TrainingState(state_path, digest_json([origin.settings, dict(sources.inputs), machine]))
    torch.manual_seed(seed)  # initial weights
    learner = Learner(method, sources.teacher).to(device)
    require_size(learner.backbone, preprocessing.size, device)
    if method.training.sync_batch_norm and processes() > 1:
        synchronise_batch_norm(learner, device)
    data = TrainingBatches(
        open_images(sources.listing),
        method.views(),
        RECIPES[method.training.views],
        preprocessing,
        method.training.batch_size,
        seed,
        sources.bags,
        sources.stored,
        rank=rank(),
        processes=processes(),
    )
    watch = Watch(learner, data, method.training, device, workers, title, events) if is_first() else None
    with state.exclusively():
        rows = train(learner, data, method.training, state, device, workers, title, watch)
        facts = {"seed": seed, "processes": processes(), **machine, **describe_device(device)}
        made = provenance(origin.stage, origin.version, origin.settings, sources.inputs, **facts)
        yield Run(learner, rows, made, watch.summary(rows)) if watch is not None else None
        state.discard()
