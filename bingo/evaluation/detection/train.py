"""Train a detector, in float32, with a learning-rate warm-up."""

import logging

import torch
from torch import Tensor, nn

from bingo.evaluation.detection.batches import DetectionBatch, DetectionBatches
from bingo.study.protocols import Detection
from bingo.training.loop import Task
from bingo.training.schedule import learning_rate

log = logging.getLogger(__name__)
_WARMUP_START = 1 / 1000


def warmup_learning_rate(protocol: Detection, epoch: int, step: int) -> float:
    """Return the learning rate of a step: the epoch's, times a warm-up factor.

    The factor rises linearly from 1/1000 to 1 over the first `warmup_steps` steps (detectron2's WarmupMultiStepLR).

    Args:
        protocol: schedule and warm-up.
        epoch: epoch, from 0.
        step: step, from 0, counted over all epochs.
    """
    progress = min(1.0, step / protocol.warmup_steps)
    factor = _WARMUP_START * (1 - progress) + progress
    return factor * learning_rate(protocol.schedule, protocol.lr, epoch, protocol.epochs)


class DetectorTask(Task):
    """Trains a torchvision detector with its own losses."""

    data: DetectionBatches
    remedy = "the protocol's learning rate is fixed, so check mean, std and the backbone, or choose another protocol"

    def __init__(self, detector: nn.Module, data: DetectionBatches, protocol: Detection, device: torch.device) -> None:
        """Train all parameters of ``detector``, on ``device``."""
        self.module, self.data, self.protocol, self.device = detector, data, protocol, device
        self.epochs = protocol.epochs
        self.optimizer = torch.optim.SGD(detector.parameters(), momentum=0.9, weight_decay=protocol.weight_decay)
        if protocol.warmup_steps >= protocol.epochs * data.steps:
            log.warning("detection: all %d training steps are warm-up", protocol.epochs * data.steps)

    def learning_rates(self, epoch: int, step: int) -> list[float]:
        """Return the learning rate of the only parameter group."""
        return [warmup_learning_rate(self.protocol, epoch, epoch * self.data.steps + step)]

    def loss(self, model: nn.Module, batch: DetectionBatch) -> dict[str, Tensor]:
        """Return the sum of the detector's losses, and each loss."""
        images, targets = batch.on(self.device)  # lists of B images (3, H, W) and B targets
        losses: dict[str, Tensor] = model(images, targets)
        loss = torch.stack(list(losses.values())).sum()
        return {"loss": loss, **losses}
