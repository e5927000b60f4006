"""The training loop of every method."""

import logging

import numpy as np
import torch
from torch import Tensor, nn

from bingo.errors import BingoError
from bingo.philox import Stream, philox
from bingo.progress import Progress
from bingo.study.sections import Training
from bingo.training import distributed
from bingo.training.batches import TrainingBatches
from bingo.training.device import resolve_precision
from bingo.training.means import RunningMeans
from bingo.training.model import Learner, StepInput
from bingo.training.monitor import Watch
from bingo.training.schedule import learning_rate
from bingo.training.signals import asked_to_end
from bingo.training.state import Position, Row, TrainingState

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
    watch: Watch | None = None,
) -> list[Row]:
    """Train ``learner``, which is on ``device``, in place, going on from ``state`` if that holds anything.

    Of several processes, ``watch`` is with the first alone.

    Returns:
        One row per epoch: epoch (from 1), lr, and the mean of each value that the method logs.

    Raises:
        BingoError: the loss or a weight is not finite, or the process is asked to end; the last saved state stays.
    """
    learner.train()
    optimizer = make_optimizer(learner, training)
    at = state.restore(learner, optimizer, device)
    model = distributed.with_shared_gradients(learner)
    dtype = resolve_precision(training.precision, device)
    images_per_epoch = data.steps * data.batch_size
    batches = data.batches(len(at.rows), training.epochs, workers, at.step)
    log.info("%s: %d epochs of %d steps on %s in %s", title, training.epochs, data.steps, device, dtype)
    if watch is not None:
        watch.begin(at)
    loss = seen = ""  # beside the bar

    done = len(at.rows) * images_per_epoch + at.step * data.batch_size
    with asked_to_end() as asked, Progress(title, training.epochs * images_per_epoch, "images", done) as progress:
        for epoch in range(len(at.rows), training.epochs):
            lr = learning_rate(training.schedule, training.lr, epoch, training.epochs)
            for group in optimizer.param_groups:
                group["lr"] = lr
            for step in range(at.step, data.steps):
                seed_step(data.seed, epoch, step)
                batch = next(batches)
                images = data.render(batch.views, device)  # (b, 3, S, S) each
                values = take_step(
                    model, learner, optimizer, StepInput(data.seed, epoch, step, images, batch.rows), dtype
                )
                at.means.add(distributed.mean(values))
                at.step = step + 1
                if at.step % _STEPS_BETWEEN_CHECKS == 0 or at.step == data.steps:
                    _require_finite(at.means, epoch, data.steps, training, state, title)
                    loss = f", loss {at.means.read()['loss']:.4g}"
                progress.advance(data.batch_size, f"epoch {epoch + 1}/{training.epochs}{loss}{seen}")
                if at.step == data.steps:
                    if not all(tensor.isfinite().all() for tensor in learner.state_dict().values()):
                        raise _diverged(
                            f"a weight is not finite after epoch {epoch + 1}", epoch, training, state, title
                        )
                    at = Position([*at.rows, {"epoch": epoch + 1, "lr": lr, **at.means.read()}])
                    if watch is not None:
                        seen = watch.after_epoch(at.rows)
                state.save_if_due(learner, optimizer, at, distributed.any_of(asked() is not None))
                if at.step == 0:
                    log.info("%s: %s", title, ", ".join(f"{name} {value:.6g}" for name, value in at.rows[-1].items()))
    return at.rows


def make_optimizer(learner: Learner, training: Training) -> torch.optim.Optimizer:
    """Return the optimizer of what ``learner`` trains."""
    return torch.optim.SGD(
        [p for p in learner.parameters() if p.requires_grad],
        lr=training.lr,
        momentum=training.momentum,
        weight_decay=training.weight_decay,
    )


def take_step(
    model: nn.Module, learner: Learner, optimizer: torch.optim.Optimizer, batch: StepInput, dtype: torch.dtype
) -> dict[str, Tensor]:
    """Take one step, and return its loss and log values; nothing here waits for a GPU.

    Args:
        model: ``learner``, or what shares its gradients among processes.
        learner: what is trained.
        optimizer: of its parameters.
        batch: the views.
        dtype: of the networks.
    """
    values: dict[str, Tensor] = model(batch, dtype)
    optimizer.zero_grad(set_to_none=True)
    values["loss"].backward()
    optimizer.step()
    learner.after_step()
    return {name: value.detach() for name, value in values.items()}


def seed_step(seed: int, epoch: int, step: int) -> None:
    """Set torch's generator for one step: some of timm's networks draw which paths to drop.

    So a training that was resumed draws the same; each of several processes draws for itself.
    """
    counter = np.array([epoch, step, distributed.rank(), 0], np.uint64)
    torch.manual_seed(int(philox(counter, (seed, Stream.STEP))[0]))


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
