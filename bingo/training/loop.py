"""The training loop, shared by methods, classifiers and detectors."""

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
    """Batches as a pure function of seed, epoch and step."""

    seed: int
    batch_size: int
    """Images per step, summed over all processes; the last step of an epoch may have fewer."""

    @property
    def steps(self) -> int:
        """Steps per epoch."""

    def count(self, step: int) -> int:
        """Return the number of images in a step, summed over all processes."""

    def batches(self, start_epoch: int, epochs: int, workers: int, start_step: int = 0) -> Iterator[Any]:
        """Yield the batches from step ``start_step`` of ``start_epoch`` to the end of epoch ``epochs``."""


class Task(ABC):
    """A training task: network, data, optimizer and loss."""

    module: nn.Module
    """Network to train, on `device`; its state is saved."""
    device: torch.device
    optimizer: torch.optim.Optimizer
    """The loop sets its learning rates in each step."""
    data: Batches
    epochs: int
    remedy: str
    """Advice for the error message when the loss is not finite."""

    @abstractmethod
    def learning_rates(self, epoch: int, step: int) -> list[float]:
        """Return the learning rate of each parameter group for an epoch and a step within it, both from 0."""

    @abstractmethod
    def loss(self, model: nn.Module, batch: Any) -> dict[str, Tensor]:
        """Return the scalar `loss` of a batch, and other scalars to log.

        Args:
            model: `module` in train mode, wrapped to average gradients if there are several processes.
            batch: a batch from `data`, on the CPU.
        """

    def after_step(self) -> None:  # noqa: B027
        """Hook called after each optimizer step."""


def train(
    task: Task, state: TrainingState | None, workers: int, title: str, monitor: Monitor | None = None
) -> list[LogRow]:
    """Train a task's module in place, and resume from ``state`` if it holds a saved training.

    Args:
        task: network, data, optimizer and loss.
        state: saves the training state. None saves nothing: signals end the process at once, and torch's generator is
            not seeded in each step.
        workers: number of loader workers.
        title: name in progress and log lines.
        monitor: monitors the training; only in rank 0.

    Returns:
        One row per epoch: epoch (from 1), lr (of the first parameter group in the last step), and the mean of each
        scalar that the task logs.

    Raises:
        BingoError: the loss or a weight is not finite, or a signal asked the process to end. The last saved state
            stays.
    """
    module, optimizer, data, epochs = task.module, task.optimizer, task.data, task.epochs
    module.train()
    position = TrainingPosition() if state is None else state.restore(module, optimizer, task.device)
    model = distributed.average_gradients(module)
    batches = data.batches(position.epoch, epochs, workers, position.step)
    images = sum(data.count(step) for step in range(data.steps))  # per epoch
    done = position.epoch * images + position.step * data.batch_size
    loss_text = monitor_text = ""  # shown next to the progress bar
    log.info("%s: %d epochs of %d steps on %s", title, epochs, data.steps, task.device)
    if monitor is not None:
        monitor.begin(position)

    signals = nullcontext(lambda: False) if state is None else catch_end_signals()
    with signals as end_requested, Progress(title, epochs * images, "images", done) as progress:
        for epoch in range(position.epoch, epochs):
            for step in range(position.step, data.steps):
                for group, lr in zip(optimizer.param_groups, task.learning_rates(epoch, step), strict=True):
                    group["lr"] = lr
                if state is not None:
                    seed_step(data.seed, epoch, step)
                values = task.loss(model, next(batches))  # scalars on the device; reading one would wait for the GPU
                loss = values["loss"]
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                optimizer.step()
                task.after_step()

                position.step += 1
                position.means.add(distributed.mean({name: value.detach() for name, value in values.items()}))
                if position.step % _STEPS_BETWEEN_CHECKS == 0 or position.step == data.steps:
                    _require_finite(task, position, state, title)
                    loss_text = f", loss {position.means.read()['loss']:.4g}"
                progress.advance(data.count(step), f"epoch {epoch + 1}/{epochs}{loss_text}{monitor_text}")
                if state is not None and position.step < data.steps:
                    state.save_if_due(module, optimizer, position, distributed.any_process(end_requested()))

            row = {"epoch": epoch + 1, "lr": optimizer.param_groups[0]["lr"], **position.means.read()}
            position = TrainingPosition([*position.rows, row])
            if monitor is not None:
                monitor_text = monitor.after_epoch(position.rows)
            if state is not None:
                state.save_if_due(module, optimizer, position, distributed.any_process(end_requested()))
            log.info("%s: %s", title, ", ".join(f"{name} {value:.6g}" for name, value in row.items()))
    return position.rows


def seed_step(seed: int, epoch: int, step: int) -> None:
    """Seed torch's global generator for one step, so that a resumed training draws the same numbers.

    Networks use it for stochastic depth, detectors to sample proposals. Each rank gets its own seed.
    """
    counter = np.array([epoch, step, distributed.rank(), 0], np.uint64)
    torch.manual_seed(int(philox(counter, (seed, Stream.STEP))[0]))


def _require_finite(task: Task, position: TrainingPosition, state: TrainingState | None, title: str) -> None:
    """Check all losses since the start of the epoch and, at its end, the weights."""
    epoch, steps, bad = position.epoch + 1, task.data.steps, position.means.first_bad_step()
    if bad is not None:
        problem = f"the loss is not finite at step {position.epoch * steps + bad + 1} (epoch {epoch}, step {bad + 1})"
    elif position.step == steps and not all(tensor.isfinite().all() for tensor in task.module.state_dict().values()):
        problem = f"a weight is not finite after epoch {epoch}"
    else:
        return
    saved = f"; the state after epoch {position.epoch} is kept in {state.path}" if state and position.epoch else ""
    raise BingoError(f"{title}: {problem}{saved}; {task.remedy}")
