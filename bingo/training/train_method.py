"""Train a method; shared by the teacher and the student stage."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bingo.artifacts.provenance import digest_json, provenance
from bingo.bags.bags import Bags
from bingo.data.images import open_images
from bingo.data.listing import Listing
from bingo.errors import BingoError
from bingo.models.backbone import require_size
from bingo.models.batch_norm import synchronise_batch_norm
from bingo.study.jobs import StudentJob, TeacherJob
from bingo.study.method import Method
from bingo.study.sections import Training
from bingo.training.batches import Batch, TrainingBatches
from bingo.training.device import describe_device, describe_machine, resolve_precision
from bingo.training.distributed import is_first, processes, rank
from bingo.training.loop import Task, train
from bingo.training.model import TrainingModel
from bingo.training.monitor import Monitor
from bingo.training.schedule import learning_rate
from bingo.training.state import LogRow, TrainingState
from bingo.training.step import StepInput, TeacherOutputs
from bingo.views.recipes import RECIPES

log = logging.getLogger(__name__)


class MethodTask(Task):
    """Trains a model with its method's loss."""

    module: TrainingModel
    data: TrainingBatches

    def __init__(self, model: TrainingModel, data: TrainingBatches, training: Training, device: torch.device) -> None:
        """Train all parameters of ``model``, on ``device``, that require gradients, with SGD."""
        self.module, self.data, self.training, self.device = model, data, training, device
        self.epochs = training.epochs
        self.dtype = resolve_precision(training.precision, device)
        self.remedy = f"lower the learning rate, training.lr, now {training.lr}"
        self.optimizer = torch.optim.SGD(
            [parameter for parameter in model.parameters() if parameter.requires_grad],
            momentum=training.momentum,
            weight_decay=training.weight_decay,
        )

    def learning_rates(self, epoch: int, step: int) -> list[float]:  # noqa: ARG002
        """Return the learning rate of the only parameter group, constant within an epoch."""
        return [learning_rate(self.training.schedule, self.training.lr, epoch, self.epochs)]

    def loss(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """Return the method's loss and other scalars to log."""
        images = self.data.render(batch.views, self.device)  # (B, 3, S, S) each
        step = StepInput(self.data.seed, batch.epoch, batch.step, images, batch.rows)
        values: dict[str, Tensor] = model(step, self.dtype)
        return values

    def after_step(self) -> None:
        """Enqueue the step's keys."""
        self.module.after_step()


@dataclass(frozen=True)
class Inputs:
    """The inputs of a method's training."""

    listing: Listing
    digests: Mapping[str, str]
    """Digest of each input, by name."""
    teacher: TeacherOutputs | None = None
    bags: Bags | None = None


def train_method(
    method: Method,
    job: TeacherJob | StudentJob,
    seed: int,
    inputs: Inputs,
    state_path: Path,
    title: str,
    device: torch.device,
    workers: int,
    write: Callable[[TrainingModel, list[LogRow], dict[str, Any]], None],
) -> None:
    """Train a method and write the result. Resumes from a saved state with the same settings and inputs.

    Args:
        method: settings of the method.
        job: the stage's job, with settings, preprocessing and the folder of TensorBoard's event files.
        seed: seed of initial weights, order, positives and the student's views.
        inputs: listing, digests and, if the method needs them, teacher and bags.
        state_path: file of the training state; deleted after the result is written.
        title: name in progress and log lines.
        device: device to train on.
        workers: number of loader workers.
        write: writes the result; called with the model, the log rows and the provenance, only in rank 0.

    Raises:
        BingoError: an input is damaged, the loss is not finite, or the batch size is not a multiple of the number of
            processes.
    """
    training = method.training
    if training.batch_size % processes():
        raise BingoError(
            f"{title}: batch_size {training.batch_size} is not divisible by the number of processes; "
            f"set a multiple of {processes()}"
        )
    machine = describe_machine(training, device)
    torch.manual_seed(seed)  # initial weights
    model = TrainingModel(method, inputs.teacher).to(device)
    require_size(model.backbone, job.preprocessing.size, device)
    if training.sync_batch_norm and processes() > 1:
        synchronise_batch_norm(model, device)
    data = TrainingBatches(
        open_images(inputs.listing),
        method.views(),
        RECIPES[training.views],
        job.preprocessing,
        training.batch_size,
        seed,
        inputs.bags,
        method.stored_views(),
        rank=rank(),
        processes=processes(),
    )
    task = MethodTask(model, data, training, device)
    monitor = Monitor(model, data, training, device, workers, title, job.events) if is_first() else None
    state = TrainingState(state_path, digest_json([job.settings, dict(inputs.digests), machine]))
    log.info("%s: networks run in %s", title, machine["precision"])
    with state.exclusively():
        rows = train(task, state, workers, title, monitor)
        if monitor is not None:
            facts = {"seed": seed, "processes": processes(), **machine, **describe_device(device)}
            write(model, rows, provenance(job.STAGE, job.STAGE_VERSION, job.settings, inputs.digests, **facts))
            log.info("%s", monitor.summary(rows))
        state.discard()
