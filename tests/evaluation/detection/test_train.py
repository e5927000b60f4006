import logging
from dataclasses import replace

import pytest
import torch
from torch import nn

from bingo.evaluation.detection.batches import DetectionBatches
from bingo.evaluation.detection.network import build_detector
from bingo.evaluation.detection.train import DetectorTask, warmup_learning_rate
from bingo.models.checkpoint import read_backbone
from bingo.study.protocols import DETECTION_PROTOCOLS
from bingo.training.loop import train
from tests.stages.conftest import CPU

STEPS = 2  # an epoch of the 5 images, in batches of 2; the fifth is a batch of its own and left out


def test_the_learning_rate_rises_over_the_first_steps_and_falls_by_epochs():
    protocol = DETECTION_PROTOCOLS["mask-rcnn"]  # 0.02, 1000 steps of warm-up, x0.1 at 8 and 11
    rates = {(0, 0): 2e-5, (0, 500): 0.02 * 0.5005, (0, 999): 0.02 * 0.999001, (0, 1000): 0.02, (7, 9999): 0.02}
    rates |= {(8, 9999): 0.002, (10, 9999): 0.002, (11, 9999): 0.0002, (8, 500): 0.002 * 0.5005}
    for (epoch, step), rate in rates.items():
        assert warmup_learning_rate(protocol, epoch, step) == pytest.approx(rate, rel=1e-12)


class Valley(nn.Module):
    """Has one weight and two losses, whose sum has the gradient 3 w + 1."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(2.0, dtype=torch.float64))
        self.seen = []

    def forward(self, images, _targets):
        self.seen.append(len(images))
        return {"loss_a": 1.5 * self.weight**2, "loss_b": self.weight}


def test_the_steps_are_those_of_sgd_with_momentum_and_weight_decay(train_set, tiny):
    protocol = replace(tiny, lr=0.1, weight_decay=0.01)
    network = Valley()
    data = DetectionBatches(train_set, 2, seed=0)
    rows = train(DetectorTask(network, data, protocol, CPU), None, 0, "test")
    weight, momentum, losses, lrs = 2.0, 0.0, [], []
    for step in range(3 * STEPS):
        lr = 0.1 * (0.1 if step >= 2 * STEPS else 1) * min(1, 0.001 + 0.999 * step / 3)
        losses.append(1.5 * weight**2 + weight)
        momentum = 0.9 * momentum + 3 * weight + 1 + 0.01 * weight
        weight -= lr * momentum
        lrs.append(lr)
    assert network.weight.item() == pytest.approx(weight, rel=1e-12)
    assert [row["epoch"] for row in rows] == [1, 2, 3]
    assert [row["lr"] for row in rows] == pytest.approx(lrs[1::2])
    assert [row["loss"] for row in rows] == pytest.approx([sum(losses[n : n + 2]) / 2 for n in (0, 2, 4)])
    assert network.seen == [2] * 6


def test_training_changes_all_layers_and_lowers_the_loss(narrow, train_set, resnet, tiny):
    protocol = replace(tiny, epochs=4, lr=0.02)
    backbone, _ = read_backbone(resnet, CPU)
    torch.manual_seed(0)
    detector = build_detector(backbone, protocol, 3, [0.4] * 3, [0.2] * 3)
    before = {name: value.detach().clone() for name, value in detector.named_parameters()}
    task = DetectorTask(detector, DetectionBatches(train_set, 2, seed=0), protocol, CPU)
    rows = train(task, None, 0, "test")
    assert [name for name, value in detector.named_parameters() if torch.equal(before[name], value)] == []
    assert rows[-1]["loss"] < 0.8 * rows[0]["loss"]
    assert set(rows[0]) >= {"loss", "loss_mask", "loss_classifier", "loss_objectness", "loss_rpn_box_reg"}


def test_a_training_that_never_leaves_the_warm_up_logs_a_warning(train_set, tiny, caplog):
    protocol = replace(tiny, epochs=1, warmup_steps=STEPS)
    with caplog.at_level(logging.WARNING):
        DetectorTask(Valley(), DetectionBatches(train_set, 2, seed=0), protocol, CPU)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
