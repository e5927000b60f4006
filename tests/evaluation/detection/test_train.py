import logging
import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from bingo.errors import BingoError
from bingo.evaluation.detection.batches import DetectionBatches
from bingo.evaluation.detection.network import build_detector
from bingo.evaluation.detection.train import DetectorTask, warmup_learning_rate
from bingo.models.checkpoint import read_backbone
from bingo.study.protocols import DETECTION_PROTOCOLS
from bingo.training.loop import train
from bingo.training.state import TrainingState

CPU = torch.device("cpu")
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


def test_the_steps_are_those_of_sgd_with_momentum_and_weight_decay(train_set, tiny, tmp_path):
    protocol = replace(tiny, lr=0.1, weight_decay=0.01)
    network = Valley()
    data = DetectionBatches(train_set, 2, seed=0)
    rows = train(DetectorTask(network, data, protocol, CPU), TrainingState(tmp_path / "state.pt", ""), 0, "test")
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


@pytest.fixture
def run(narrow, train_set, model, tiny, tmp_path):
    """Train a real detector; `prepare` may tamper with it first. Returns (detector, rows, state)."""

    def run(name, prepare=lambda _detector: None, **changes):
        protocol = replace(tiny, **changes)
        backbone, _ = read_backbone(model, CPU)
        torch.manual_seed(0)
        detector = build_detector(backbone, protocol, 3, [0.4] * 3, [0.2] * 3)
        prepare(detector)
        state = TrainingState(tmp_path / name / "state.pt", "same")
        data = DetectionBatches(train_set, protocol.batch_size, seed=0)
        return detector, train(DetectorTask(detector, data, protocol, CPU), state, 0, "test"), state

    return run


def interrupt_in(step):
    """Return a preparation that stops training in a step, counted from 1 in this process."""

    def prepare(detector):
        forward, done = detector.forward, []

        def stopping(*arguments):
            done.append(1)
            if len(done) == step:
                raise KeyboardInterrupt
            return forward(*arguments)

        detector.forward = stopping

    return prepare


def test_an_interrupted_training_ends_with_the_bytes_of_an_uninterrupted_one(run):
    whole, expected_rows, _ = run("whole")
    with pytest.raises(KeyboardInterrupt):
        run("stopped", interrupt_in(STEPS + 2))
    torch.manual_seed(99)  # what another process has drawn
    resumed, rows, _ = run("stopped", interrupt_in(2 * STEPS + 1))  # two epochs are left, which is not interrupted
    assert rows == expected_rows
    expected, found = whole.state_dict(), resumed.state_dict()
    assert list(found) == list(expected)
    assert all(found[name].numpy().tobytes() == expected[name].numpy().tobytes() for name in expected)


def test_training_changes_all_layers_and_lowers_the_loss(run):
    detector, rows, state = run("long", epochs=4, lr=0.02)
    untrained, _, _ = run("none", epochs=0)
    before, after = dict(untrained.named_parameters()), dict(detector.named_parameters())
    assert [name for name in before if torch.equal(before[name], after[name])] == []
    assert rows[-1]["loss"] < 0.8 * rows[0]["loss"]
    assert set(rows[0]) >= {"loss", "loss_mask", "loss_classifier", "loss_objectness", "loss_rpn_box_reg"}
    assert state.path.exists()  # until the result is written


def test_a_loss_that_is_not_finite_ends_training_and_keeps_the_last_epoch(run, tmp_path):
    def spoil(detector):
        forward, done = detector.forward, []

        def spoilt(*arguments):
            done.append(1)
            return {
                name: loss * (math.nan if len(done) == STEPS + 1 else 1) for name, loss in forward(*arguments).items()
            }

        detector.forward = spoilt

    with pytest.raises(BingoError, match=r"not finite at step 3 \(epoch 2, step 1\); .*state\.pt"):
        run("spoilt", spoil)
    kept = torch.load(tmp_path / "spoilt/state.pt", weights_only=True)
    assert len(kept["rows"]) == 1
    assert all(value.isfinite().all() for value in kept["module"].values())


def test_a_weight_that_is_not_finite_is_noticed_at_the_end_of_the_epoch(run):
    def spoil(detector):
        detector.backbone.body.bn1.register_buffer("extra", torch.tensor(math.inf))

    with pytest.raises(BingoError, match="a weight is not finite after epoch 1; "):
        run("spoilt", spoil)


def test_a_training_that_never_leaves_the_warm_up_says_so(run, caplog):
    with caplog.at_level(logging.WARNING):
        run("short", epochs=1, warmup_steps=STEPS)
    assert "all of its 2 steps are warm-up" in caplog.text
