"""How a detector is trained: in float32, with a warm-up."""

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


class DetectorTask(Task):
    """Training a detector of torchvision's by its own losses."""

    data: DetectionBatches
    remedy = "a protocol's learning rate is fixed, so check mean, std and the backbone, or measure by another protocol"

    def __init__(self, detector: nn.Module, data: DetectionBatches, protocol: Detection, device: torch.device) -> None:
        """Train all of ``detector``, which is on ``device``."""
        self.module, self.data, self.protocol, self.device = detector, data, protocol, device
        self.epochs = protocol.epochs
        self.optimizer = torch.optim.SGD(detector.parameters(), momentum=0.9, weight_decay=protocol.weight_decay)
        if protocol.warmup_steps >= protocol.epochs * data.steps:
            log.warning("detection: all of its %d steps are warm-up", protocol.epochs * data.steps)

    def learning_rates(self, epoch: int, step: int) -> list[float]:
        """Return the learning rate of all parameters."""
        return [warmup_learning_rate(self.protocol, epoch, epoch * self.data.steps + step)]

    def loss(self, model: nn.Module, batch: DetectionBatch) -> dict[str, Tensor]:
        """Return the sum of the detector's losses, and each of them."""
        images, targets = batch.on(self.device)  # B times (3, H, W), and their boxes, labels and masks
        losses: dict[str, Tensor] = model(images, targets)
        return {"loss": torch.stack(list(losses.values())).sum(), **losses}
