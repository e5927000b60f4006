"""The training loop of every method."""

import logging
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from bingo.data.loader import TrainingBatches
from bingo.engine.device import resolve_precision
from bingo.engine.learner import Learner, StepInput
from bingo.engine.schedule import learning_rate
from bingo.engine.state import Row, TrainingState
from bingo.errors import BingoError
from bingo.philox import Stream, philox
from bingo.progress import Progress
from bingo.sections import Training

log = logging.getLogger(__name__)
_STEPS_BETWEEN_CHECKS = 50


def train(
    learner: Learner,
    data: TrainingBatches,
    training: Training,
    state: TrainingState,
    device: torch.device,
    workers: int,
    title: str,
) -> list[Row]:
    """Train ``learner``, which is on ``device``, in place, going on from ``state`` if that holds anything.

    Returns:
        One row per epoch: epoch (from 1), lr, and the mean of each value that the method logs.

    Raises:
        BingoError: the loss is not finite; the state of the last whole epoch stays on disk.
    """
    learner.train()
    optimizer = torch.optim.SGD(
        [p for p in learner.parameters() if p.requires_grad],
        lr=training.lr,
        momentum=training.momentum,
        weight_decay=training.weight_decay,
    )
    rows = state.restore(learner, optimizer)
    dtype = resolve_precision(training.precision, device)
    images_per_epoch = data.steps * data.batch_size
    batches = data.batches(len(rows), training.epochs, workers)
    log.info("%s: %d epochs of %d steps on %s in %s", title, training.epochs, data.steps, device, dtype)

    with Progress(title, training.epochs * images_per_epoch, "images", len(rows) * images_per_epoch) as progress:
        for epoch in range(len(rows), training.epochs):
            lr = learning_rate(training.schedule, training.lr, epoch, training.epochs)
            for group in optimizer.param_groups:
                group["lr"] = lr
            # Some networks of timm draw which paths to drop; from here, so that a resumed training draws the same.
            torch.manual_seed(int(philox(np.array([epoch, 0, 0, 0], np.uint64), (data.seed, Stream.EPOCH))[0]))
            means = RunningMeans()
            for step in range(data.steps):
                batch = next(batches)
                images = {name: data.render(view, device) for name, view in batch.views.items()}  # (B, 3, S, S) each
                values = learner(StepInput(data.seed, epoch, step, images, batch.rows), dtype)
                optimizer.zero_grad(set_to_none=True)
                values["loss"].backward()
                optimizer.step()
                learner.after_step()
                means.add({name: value.detach() for name, value in values.items()})
                if (step + 1) % _STEPS_BETWEEN_CHECKS == 0 or step + 1 == data.steps:
                    _require_finite(means, epoch, data.steps, training, state, title)
                progress.advance(data.batch_size, f"epoch {epoch + 1}/{training.epochs}")
            if not all(tensor.isfinite().all() for tensor in learner.state_dict().values()):
                raise _diverged(f"a weight is not finite after epoch {epoch + 1}", epoch, training, state, title)
            rows.append({"epoch": epoch + 1, "lr": lr, **means.read()})
            state.save(learner, optimizer, rows)
            log.info("%s: %s", title, ", ".join(f"{name} {value:.6g}" for name, value in rows[-1].items()))
    return rows


class RunningMeans:
    """Means of logged values, kept on the device: reading a value at every step would stall a GPU."""

    def __init__(self) -> None:
        """Start with nothing counted."""
        self._sums: dict[str, Tensor] = {}
        self._count = 0
        self._finite_steps: Tensor | None = None

    def add(self, values: Mapping[str, Tensor]) -> None:
        """Count one step's scalars."""
        for name, value in values.items():
            self._sums[name] = self._sums.get(name, torch.zeros_like(value)) + value
        self._count += 1
        # Sums stay non-finite once a term was, so this counts the steps before the first bad one.
        finite = torch.stack(list(self._sums.values())).isfinite().all().long()
        self._finite_steps = finite if self._finite_steps is None else self._finite_steps + finite

    def first_bad_step(self) -> int | None:
        """Return the first step (from 0) whose values were not finite, None if all were."""
        finite = int(self._finite_steps) if self._finite_steps is not None else 0
        return None if finite == self._count else finite

    def read(self) -> dict[str, float]:
        """Return the means so far."""
        return {name: float(total) / self._count for name, total in self._sums.items()}


def _require_finite(
    means: RunningMeans, epoch: int, steps: int, training: Training, state: TrainingState, title: str
) -> None:
    bad = means.first_bad_step()
    if bad is not None:
        where = f"the loss is not finite at step {epoch * steps + bad + 1} (epoch {epoch + 1}, step {bad + 1})"
        raise _diverged(where, epoch, training, state, title)


def _diverged(what: str, epoch: int, training: Training, state: TrainingState, title: str) -> BingoError:
    kept = f"the state after epoch {epoch} is kept in {state.path}" if epoch > 0 else "no epoch was whole"
    return BingoError(f"{title}: {what}; {kept}; lower the learning rate, training.lr, now {training.lr}")
