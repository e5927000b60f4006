"""The training loop of a detector, in float32."""

import logging

import torch
from torch import nn

from bingo.errors import BingoError
from bingo.evaluation.detection.batches import DetectionBatches
from bingo.progress import Progress
from bingo.study.protocols import Detection
from bingo.training.loop import seed_step
from bingo.training.schedule import learning_rate
from bingo.training.signals import asked_to_end
from bingo.training.state import Position, Row, TrainingState

log = logging.getLogger(__name__)

_WARMUP_START = 1 / 1000


def warmed_up(protocol: Detection, epoch: int, step: int) -> float:
    """Return the learning rate of a step.

    It falls by epochs, and over the first `warmup_steps` is multiplied by what rises linearly from 1/1000 to 1
    (detectron2's WarmupMultiStepLR).

    Args:
        protocol: schedule and warm-up.
        epoch: from 0.
        step: from 0, counted over all epochs.
    """
    done = min(1.0, step / protocol.warmup_steps)
    rise = _WARMUP_START * (1 - done) + done
    return rise * learning_rate(protocol.schedule, protocol.lr, epoch, protocol.epochs)


def train(
    detector: nn.Module,
    data: DetectionBatches,
    protocol: Detection,
    state: TrainingState,
    device: torch.device,
    workers: int,
    title: str,
) -> list[Row]:
    """Train ``detector``, which is on ``device``, in place, going on from ``state`` if that holds anything.

    Returns:
        One row per epoch: epoch (from 1), lr of its last step, and the means of the losses.

    Raises:
        BingoError: the loss or a weight is not finite, or the process is asked to end; the last saved state stays.
    """
    detector.train()
    optimizer = torch.optim.SGD(detector.parameters(), lr=protocol.lr, momentum=0.9, weight_decay=protocol.weight_decay)
    at = state.restore(detector, optimizer, device)
    batches = data.batches(len(at.rows), protocol.epochs, workers, at.step)
    images_per_epoch = min(len(data.positions), data.steps * data.batch_size)
    log.info("%s: %d epochs of %d steps on %s", title, protocol.epochs, data.steps, device)
    if protocol.warmup_steps >= protocol.epochs * data.steps:
        log.warning("%s: all of its %d steps are warm-up", title, protocol.epochs * data.steps)

    done = len(at.rows) * images_per_epoch + at.step * data.batch_size
    with asked_to_end() as asked, Progress(title, protocol.epochs * images_per_epoch, "images", done) as progress:
        for epoch in range(len(at.rows), protocol.epochs):
            for step in range(at.step, data.steps):
                lr = warmed_up(protocol, epoch, epoch * data.steps + step)
                for group in optimizer.param_groups:
                    group["lr"] = lr
                seed_step(data.seed, epoch, step)  # which anchors and proposals count is drawn
                images, targets = next(batches).on(device)
                losses = detector(images, targets)
                loss = torch.stack(list(losses.values())).sum()
                if not loss.isfinite():
                    raise _diverged(f"the loss is not finite in epoch {epoch + 1}, step {step + 1}", state, title)
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                optimizer.step()
                at.means.add({"loss": loss.detach(), **{name: value.detach() for name, value in losses.items()}})
                at.step = step + 1
                progress.advance(len(images), f"epoch {epoch + 1}/{protocol.epochs}")
                if at.step == data.steps:
                    if not all(tensor.isfinite().all() for tensor in detector.state_dict().values()):
                        raise _diverged(f"a weight is not finite after epoch {epoch + 1}", state, title)
                    at = Position([*at.rows, {"epoch": epoch + 1, "lr": lr, **at.means.read()}])
                state.save_if_due(detector, optimizer, at, asked() is not None)
                if at.step == 0:
                    log.info("%s: %s", title, ", ".join(f"{name} {value:.6g}" for name, value in at.rows[-1].items()))
    return at.rows


def _diverged(what: str, state: TrainingState, title: str) -> BingoError:
    return BingoError(
        f"{title}: {what}; the state of the last whole epoch, if any, is {state.path}; a protocol's learning rate is "
        "fixed, so check mean, std and the backbone, or measure by another protocol"
    )
