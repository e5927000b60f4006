"""The training loop, and what it has to know of what it trains: a method, a classifier, a detector."""

import logging
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from bingo.errors import BingoError
from bingo.philox import Stream, philox
from bingo.progress import Progress
from bingo.training import distributed
from bingo.training.monitor import Monitor
from bingo.training.signals import catch_end_signals
from bingo.training.state import LogRow, TrainingPosition, TrainingState

log = logging.getLogger(__name__)
_STEPS_BETWEEN_CHECKS = 50


class Batches(Protocol):
    """Batches that depend on the seed, the epoch and the step alone."""

    seed: int
    batch_size: int
    """Images per step, of all processes together; the last step of an epoch may have fewer."""

    @property
    def steps(self) -> int:
        """Steps per epoch."""

    def count(self, step: int) -> int:
        """Return the number of images in a step, of all processes together."""

    def batches(self, start_epoch: int, epochs: int, workers: int, start_step: int = 0) -> Iterator[Any]:
        """Yield the batches from a step of an epoch on to the end of ``epochs``, one after the other."""


class Task(ABC):
    """What is trained, on what, and by which loss."""

    module: nn.Module
    """What is trained, on `device`; its state is saved."""
    device: torch.device
    optimizer: torch.optim.Optimizer
    """The loop sets its learning rates."""
    data: Batches
    epochs: int
    remedy: str
    """What to do about a loss that is not finite."""

    @abstractmethod
    def learning_rates(self, epoch: int, step: int) -> list[float]:
        """Return the learning rate of each of the optimizer's parameter groups in a step of an epoch, both from 0."""

    @abstractmethod
    def loss(self, model: nn.Module, batch: Any) -> dict[str, Tensor]:
        """Return the scalar `loss` of a batch, and other scalars to log.

        Args:
            model: `module`, in training mode; of several processes, what also averages its gradients among them.
            batch: one of `data`, on the CPU.
        """

    def after_step(self) -> None:  # noqa: B027
        """Do what follows the optimizer's step."""


def train(
    task: Task, state: TrainingState | None, workers: int, title: str, monitor: Monitor | None = None
) -> list[LogRow]:
    """Train a task's module in place, going on from ``state`` if that holds anything.

    Args:
        task: what is trained, on what, and by which loss.
        state: where the training is saved on its way; None to save nothing, so that a signal ends it at once, and what
            networks draw comes from torch's generator as it is.
        workers: loader processes.
        title: name for progress lines.
        monitor: looks at the module after each epoch; of several processes only the first one has it.

    Returns:
        One row per epoch: epoch (from 1), lr (of the first parameter group in the last step), and the mean of each
        scalar that the task logs.

    Raises:
        BingoError: the loss or a weight is not finite, or the process is asked to end; the last saved state stays.
    """
    module, optimizer, data, epochs = task.module, task.optimizer, task.data, task.epochs
    module.train()
    position = TrainingPosition() if state is None else state.restore(module, optimizer, task.device)
    model = distributed.average_gradients(module)
    batches = data.batches(position.epoch, epochs, workers, position.step)
    images = sum(data.count(step) for step in range(data.steps))  # of an epoch
    done = position.epoch * images + position.step * data.batch_size
    loss_shown = monitor_shown = ""  # beside the bar
    log.info("%s: %d epochs of %d steps on %s", title, epochs, data.steps, task.device)
    if monitor is not None:
        monitor.begin(position)

    signals = nullcontext(lambda: False) if state is None else catch_end_signals()
    with signals as ends, Progress(title, epochs * images, "images", done) as progress:
        for epoch in range(position.epoch, epochs):
            for step in range(position.step, data.steps):
                for group, lr in zip(optimizer.param_groups, task.learning_rates(epoch, step), strict=True):
                    group["lr"] = lr
                if state is not None:
                    seed_step(data.seed, epoch, step)
                values = task.loss(model, next(batches))  # scalars; to read one would wait for the GPU
                loss = values["loss"]
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                optimizer.step()
                task.after_step()

                position.step += 1
                position.means.add(distributed.mean({name: value.detach() for name, value in values.items()}))
                if position.step % _STEPS_BETWEEN_CHECKS == 0 or position.step == data.steps:
                    _require_finite(task, position, state, title)
                    loss_shown = f", loss {position.means.read()['loss']:.4g}"
                progress.advance(data.count(step), f"epoch {epoch + 1}/{epochs}{loss_shown}{monitor_shown}")
                if state is not None and position.step < data.steps:
                    state.save_if_due(module, optimizer, position, distributed.any_process(ends()))

            row = {"epoch": epoch + 1, "lr": optimizer.param_groups[0]["lr"], **position.means.read()}
            position = TrainingPosition([*position.rows, row])
            if monitor is not None:
                monitor_shown = monitor.after_epoch(position.rows)
            if state is not None:
                state.save_if_due(module, optimizer, position, distributed.any_process(ends()))
            log.info("%s: %s", title, ", ".join(f"{name} {value:.6g}" for name, value in row.items()))
    return position.rows


def seed_step(seed: int, epoch: int, step: int) -> None:
    """Set torch's generator for one step: some networks draw which paths to drop, a detector what it learns from.

    So a training that was resumed draws the same; each of several processes draws for itself.
    """
    counter = np.array([epoch, step, distributed.rank(), 0], np.uint64)
    torch.manual_seed(int(philox(counter, (seed, Stream.STEP))[0]))


def _require_finite(task: Task, position: TrainingPosition, state: TrainingState | None, title: str) -> None:
    """Refuse a loss that was not finite since the epoch began, and at its end a weight."""
    epoch, steps, bad = position.epoch + 1, task.data.steps, position.means.first_bad_step()
    if bad is not None:
        fault = f"the loss is not finite at step {position.epoch * steps + bad + 1} (epoch {epoch}, step {bad + 1})"
    elif position.step == steps and not all(tensor.isfinite().all() for tensor in task.module.state_dict().values()):
        fault = f"a weight is not finite after epoch {epoch}"
    else:
        return
    kept = f"; the state after epoch {position.epoch} is kept in {state.path}" if state and position.epoch else ""
    raise BingoError(f"{title}: {fault}{kept}; {task.remedy}")
