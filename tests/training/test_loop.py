import logging
import math
import os
import signal
from functools import cache

import pytest
import torch
from torch import nn

from bingo.errors import BingoError
from bingo.study.sections import Steps
from bingo.training import loop
from bingo.training.loop import train
from bingo.training.means import RunningMeans
from bingo.training.model import StepInput
from bingo.training.state import TrainingState
from bingo.training.train_method import MethodTask

from .conftest import stop_in

CPU = torch.device("cpu")
STEPS = 3  # an epoch of the tiny dataset


@pytest.fixture(scope="module")
def run_in(build, batches, training):
    """Train a method in a folder; `prepare` may tamper with it first."""

    def run_in(folder, name, seed=0, prepare=lambda _learner: None, identity="same", workers=0, **changes):
        learner = build(name, seed)
        prepare(learner)
        state = TrainingState(folder / "state.pt", identity)
        settings = training.model_copy(update=changes)
        rows = train(MethodTask(learner, batches(learner), settings, CPU), state, workers, "test")
        return learner, rows, state

    return run_in


@pytest.fixture
def run(run_in, tmp_path):
    """Train a method in the test's folder, or one below it."""
    return lambda name, folder="run", **options: run_in(tmp_path / folder, name, **options)


@pytest.fixture(scope="module")
def whole(run_in, tmp_path_factory):
    """From a method's name to learner and rows of an uninterrupted run."""

    @cache
    def whole(name):
        return run_in(tmp_path_factory.mktemp(name), name)[:2]

    return whole


def count_steps(counter):
    """Return a preparation that counts the steps which a learner finishes."""

    def prepare(learner):
        after_step = learner.after_step

        def counting():
            after_step()
            counter.append(1)

        learner.after_step = counting

    return prepare


def spoil(step, value=math.nan):
    """Return a preparation that makes the loss not finite in a step, counted from 1."""

    def prepare(learner):
        forward, done = learner.forward, []

        def spoilt(batch, dtype):
            values = forward(batch, dtype)
            done.append(1)
            return {name: v * value for name, v in values.items()} if len(done) == step else values

        learner.forward = spoilt

    return prepare


def same_bytes(first, second):
    first, second = first.state_dict(), second.state_dict()
    return list(first) == list(second) and all(
        first[name].numpy().tobytes() == second[name].numpy().tobytes() for name in first
    )


# In the middle of the first epoch, in the middle of the second, in the very last step.
@pytest.mark.parametrize(
    ("name", "stops"),
    [
        ("moco", [2, STEPS + 2, 3 * STEPS]),
        ("bingo", [STEPS + 2]),
        ("official", [STEPS + 2]),
        ("disco", [STEPS + 1]),
    ],
)
def test_an_interrupted_run_ends_with_the_bytes_of_an_uninterrupted_one(name, stops, run, whole):
    expected, expected_rows = whole(name)
    for step in stops:
        folder = f"stopped in {step}"
        with pytest.raises(KeyboardInterrupt):
            run(name, folder, prepare=stop_in(step))
        # After a whole epoch nothing of a new process's initial weights may be left.
        steps = []
        resumed, rows, _ = run(name, folder, seed=0 if step <= STEPS else 99, prepare=count_steps(steps))
        assert len(steps) == 3 * STEPS - (step - 1) // STEPS * STEPS
        assert rows == expected_rows
        assert same_bytes(resumed, expected)


def signal_in(step, number):
    """Return a preparation that sends this process a signal in a step, counted from 1 in this process."""

    def prepare(learner):
        after_step, done = learner.after_step, []

        def signalled():
            after_step()
            done.append(1)
            if len(done) == step:
                os.kill(os.getpid(), number)

        learner.after_step = signalled

    return prepare


# In the middle of the first epoch, at the end of the second, in the middle of the last.
@pytest.mark.parametrize("step", [2, 2 * STEPS, 2 * STEPS + 2])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
@pytest.mark.parametrize("workers", [0, 1])
def test_a_run_that_is_asked_to_end_goes_on_from_the_very_step(step, number, workers, run, whole):
    expected, expected_rows = whole("moco")
    before = signal.getsignal(number)
    with pytest.raises(BingoError, match=r"asked to end; .*state\.pt holds the state after epoch"):
        run("moco", prepare=signal_in(step, number), workers=workers)
    assert signal.getsignal(number) == before
    steps = []
    resumed, rows, _ = run("moco", seed=99, prepare=count_steps(steps), workers=workers)
    assert len(steps) == 3 * STEPS - step
    assert rows == expected_rows
    assert same_bytes(resumed, expected)


def test_within_a_long_epoch_the_state_is_saved_from_time_to_time(run, whole, monkeypatch):
    monkeypatch.setattr("bingo.training.state._SECONDS_BETWEEN_SAVES", 0.0)
    with pytest.raises(KeyboardInterrupt):
        run("moco", prepare=stop_in(STEPS + 3))
    steps = []
    resumed, rows, _ = run("moco", seed=99, prepare=count_steps(steps))
    assert len(steps) == 3 * STEPS - STEPS - 2
    assert (rows, same_bytes(resumed, whole("moco")[0])) == (whole("moco")[1], True)


def test_a_run_interrupted_twice_ends_the_same(run, whole):
    expected, expected_rows = whole("moco")
    for step in (STEPS + 1, STEPS + 1):
        with pytest.raises(KeyboardInterrupt):
            run("moco", prepare=stop_in(step))
    resumed, rows, _ = run("moco")
    assert rows == expected_rows
    assert same_bytes(resumed, expected)


def with_dropout(learner):
    learner.head = nn.Sequential(nn.Dropout(0.5), learner.head)


# In the first step of the second epoch, in the middle of it, in the first of the third.
@pytest.mark.parametrize("step", [STEPS + 1, STEPS + 2, 2 * STEPS + 1])
@pytest.mark.parametrize("name", ["moco", "bingo"])
def test_an_interrupted_run_of_a_network_that_draws_ends_with_the_same_bytes(name, step, run, whole):
    def stopping(learner):
        with_dropout(learner)
        stop_in(step)(learner)

    expected, expected_rows, _ = run(name, "whole", prepare=with_dropout)
    assert [row["loss"] for row in expected_rows] != [row["loss"] for row in whole(name)[1]]
    with pytest.raises(KeyboardInterrupt):
        run(name, prepare=stopping)
    torch.rand(5)  # the generator of a new process is somewhere else
    resumed, rows, _ = run(name, seed=99, prepare=with_dropout)
    assert rows == expected_rows
    assert same_bytes(resumed, expected)


def seeds_of(learner, data, training, folder):
    """Return the seed of torch's generator at every step of a run."""
    seeds, forward = [], learner.forward
    learner.forward = lambda batch, dtype: seeds.append(torch.initial_seed()) or forward(batch, dtype)
    train(MethodTask(learner, data, training, CPU), TrainingState(folder / "state.pt", "same"), 0, "test")
    return seeds


def test_each_step_of_each_seed_draws_from_a_generator_of_its_own(build, batches, training, tmp_path):
    found = {}
    for seed in (0, 1, 11):
        learner = build("moco", 0)
        data = batches(learner)
        data.seed = seed
        found[seed] = seeds_of(learner, data, training, tmp_path / str(seed))
    assert len({seed for seeds in found.values() for seed in seeds}) == 3 * 3 * STEPS


def test_draws_of_different_epochs_differ(run):
    draws = []

    def prepare(learner):
        forward = learner.forward
        learner.forward = lambda batch, dtype: draws.append(torch.rand(2).tolist()) or forward(batch, dtype)

    run("moco", prepare=prepare)
    assert len({tuple(draw) for draw in draws}) == 3 * STEPS
    first = list(draws)
    draws.clear()
    run("moco", "again", seed=5, prepare=prepare)
    assert draws == first


def test_without_a_state_the_same_is_trained_and_nothing_is_saved(build, batches, training, whole, tmp_path):
    learner = build("moco", 0)
    rows = train(MethodTask(learner, batches(learner), training, CPU), None, 0, "test")
    expected, expected_rows = whole("moco")
    assert (rows, same_bytes(learner, expected)) == (expected_rows, True)
    assert not list(tmp_path.iterdir())


def test_without_a_state_a_signal_is_not_held_back(build, batches, training):
    seen, learner = [], build("moco", 0)
    after_step = learner.after_step
    learner.after_step = lambda: seen.append(signal.getsignal(signal.SIGTERM)) or after_step()
    before = signal.getsignal(signal.SIGTERM)
    train(MethodTask(learner, batches(learner), training.model_copy(update={"epochs": 1}), CPU), None, 0, "test")
    assert seen == [before] * STEPS


class TwoGroups(MethodTask):
    """A method's training with a learning rate of its own for the head, which falls by steps."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        parts = (self.module.backbone, self.module.head)
        self.optimizer = torch.optim.SGD([{"params": part.parameters()} for part in parts])
        self.seen = []

    def learning_rates(self, epoch, step):
        return [0.5, 0.1 / (1 + epoch * STEPS + step)]

    def after_step(self):
        super().after_step()
        self.seen.append([group["lr"] for group in self.optimizer.param_groups])


def test_each_parameter_group_has_its_own_learning_rate_in_every_step(build, batches, training):
    learner = build("bingo", 0)
    task = TwoGroups(learner, batches(learner), training, CPU)
    rows = train(task, None, 0, "test")
    assert task.seen == [[0.5, 0.1 / (1 + step)] for step in range(3 * STEPS)]
    assert [row["lr"] for row in rows] == [0.5] * 3


def test_a_learner_stays_where_it_is(run, monkeypatch):
    def prepare(learner):
        monkeypatch.setattr(type(learner), "to", lambda *_: pytest.fail("the learner was moved"))

    run("moco", prepare=prepare, epochs=1)


def test_a_finished_state_is_read_without_training_again(run):
    expected, expected_rows, _ = run("moco")
    steps = []
    learner, rows, _ = run("moco", seed=99, prepare=count_steps(steps))
    assert (steps, rows) == ([], expected_rows)
    assert same_bytes(learner, expected)


def test_a_state_of_another_identity_is_not_gone_on_from(run, whole, caplog):
    expected, expected_rows = whole("moco")
    run("moco", seed=99, identity="other")
    learner, rows, state = run("moco")
    assert rows == expected_rows
    assert same_bytes(learner, expected)
    assert f"{state.path}: belongs to other settings or inputs" in caplog.text


def test_a_learner_is_trained_in_train_mode_whatever_mode_it_comes_in(run, whole):
    learner, rows, _ = run("moco", prepare=lambda learner: learner.eval())
    assert all(module.training for module in learner.modules())
    assert rows == whole("moco")[1]


def test_loader_workers_change_nothing(run, whole):
    alone, rows_alone = whole("bingo")
    helped, rows_helped, _ = run("bingo", workers=2)
    assert rows_alone == rows_helped
    assert same_bytes(alone, helped)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_stops_with_its_step_and_keeps_the_last_whole_epoch(value, run, build, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        run("moco", "expected", prepare=stop_in(STEPS + 1))
    expected = (tmp_path / "expected" / "state.pt").read_bytes()
    with pytest.raises(BingoError) as caught:
        run("moco", "spoilt", prepare=spoil(STEPS + 2, value))
    path = tmp_path / "spoilt" / "state.pt"
    message = str(caught.value)
    assert "training.lr" in message
    assert "step 5 (epoch 2, step 2)" in message
    assert f"after epoch 1 is kept in {path}" in message
    assert path.read_bytes() == expected


def test_a_first_epoch_that_goes_wrong_promises_no_state(run):
    run("moco", identity="other")  # leaves a file that is not this run's
    with pytest.raises(BingoError, match=r"step 2 \(epoch 1, step 2\); lower the learning rate"):
        run("moco", prepare=spoil(2))


def test_a_weight_that_is_not_finite_after_the_last_step_is_no_result(run, build, tmp_path):
    def prepare(learner):  # the loss of the epoch's last step is still finite
        after_step, done = learner.after_step, []

        def overflowing():
            after_step()
            done.append(1)
            if len(done) == 2 * STEPS:
                learner.head[2].bias.data[0] = math.inf

        learner.after_step = overflowing

    with pytest.raises(BingoError, match=r"not finite after epoch 2; the state after epoch 1 is kept"):
        run("moco", prepare=prepare)
    learner = build("moco", 0)
    trainable = [parameter for parameter in learner.parameters() if parameter.requires_grad]
    state = TrainingState(tmp_path / "run" / "state.pt", "same")
    rows = state.restore(learner, torch.optim.SGD(trainable), CPU).rows
    assert [row["epoch"] for row in rows] == [1]


def test_a_long_epoch_is_checked_before_it_ends(run, monkeypatch):
    monkeypatch.setattr(loop, "_STEPS_BETWEEN_CHECKS", 2)
    steps = []

    def prepare(learner):
        spoil(1)(learner)
        count_steps(steps)(learner)

    with pytest.raises(BingoError, match="step 1 "):
        run("moco", prepare=prepare)
    assert len(steps) == 2


def test_training_is_sgd_with_momentum_and_weight_decay_on_every_trainable_parameter(run, build, batches, training):
    changes = {"epochs": 2, "lr": 0.2, "momentum": 0.8, "weight_decay": 0.01}
    found, rows, _ = run("moco", **changes)

    learner = build("moco", 0).train()
    data = batches(learner)
    trained = {name: p for name, p in learner.named_parameters() if not name.startswith("momentum_encoder.")}
    velocity = {name: torch.zeros_like(p) for name, p in trained.items()}
    stream = data.batches(0, 2, 0)
    means = []
    for epoch, lr in enumerate((0.2, 0.1)):  # the cosine of a half turn in two epochs
        losses = []
        for step in range(STEPS):
            batch = next(stream)
            images = data.render(batch.views, CPU)
            loss = learner(StepInput(11, epoch, step, images, batch.rows), torch.float32)["loss"]
            gradients = torch.autograd.grad(loss, list(trained.values()))
            losses.append(float(loss.detach()))
            with torch.no_grad():
                for (name, p), gradient in zip(trained.items(), gradients, strict=True):
                    velocity[name] = 0.8 * velocity[name] + gradient + 0.01 * p
                    p -= lr * velocity[name]
            learner.after_step()
        means.append(sum(losses) / STEPS)
    for name, value in found.state_dict().items():
        torch.testing.assert_close(value, learner.state_dict()[name], rtol=1e-3, atol=1e-4, msg=lambda m, n=name: n + m)
    assert [row["epoch"] for row in rows] == [1, 2]
    assert [row["lr"] for row in rows] == pytest.approx([0.2, 0.1])
    assert [row["loss"] for row in rows] == pytest.approx(means, rel=1e-4)


def test_weight_decay_reaches_biases_and_batch_norm_too(run, build):
    # Nothing but decay moves a parameter when the loss does not depend on it.
    def flat(learner):
        learner.forward = lambda _batch, _dtype: {"loss": 0 * sum(p.sum() for p in learner.parameters())}
        learner.after_step = lambda: None

    before = dict(build("bingo", 0).named_parameters())
    found, _, _ = run("bingo", prepare=flat, epochs=1, lr=0.1, momentum=0.0, weight_decay=0.5)
    for name, parameter in found.named_parameters():
        torch.testing.assert_close(parameter, before[name] * (1 - 0.1 * 0.5) ** STEPS)


def test_a_row_an_epoch_is_logged(run, caplog):
    with caplog.at_level(logging.INFO):
        _, rows, _ = run("bingo")
    assert [list(row) for row in rows] == [["epoch", "lr", "loss", "intra", "inter"]] * 3
    for row in rows:
        assert row["loss"] == pytest.approx(row["intra"] + row["inter"], rel=1e-5)
        assert f"test: epoch {row['epoch']:g}, lr {row['lr']:.6g}, loss {row['loss']:.6g}" in caplog.text


def test_a_term_that_starts_late_is_logged_from_then_on(whole):
    _, rows = whole("official")
    assert [set(row) for row in rows] == [
        {"epoch", "lr", "loss", "intra", "cutmix"},
        *[{"epoch", "lr", "loss", "intra", "inter", "cutmix"}] * 2,
    ]
    for row in rows:
        assert row["loss"] == pytest.approx((row["intra"] + row.get("inter", 0) + row["cutmix"]) / 3, rel=1e-5)


def test_learning_rates_follow_the_schedule_of_the_settings(run):
    learner, rows, _ = run("moco", schedule=Steps(milestones=[1, 2], factor=0.5), lr=0.08)
    assert [row["lr"] for row in rows] == [0.08, 0.04, 0.02]
    constant, _, _ = run("moco", "constant", schedule=Steps(milestones=[9], factor=0.5), lr=0.08)
    assert not same_bytes(learner, constant)


@pytest.mark.parametrize("name", ["official", "disco"])
def test_a_learner_sees_every_batch_where_it_stands_in_training(name, run, batches):
    seen = []

    def prepare(learner):
        forward = learner.forward
        learner.forward = lambda batch, dtype: seen.append((batch, dtype)) or forward(batch, dtype)

    learner, _, _ = run(name, prepare=prepare)
    data = batches(learner)
    positions = [(batch.seed, batch.epoch, batch.step) for batch, _ in seen]
    assert positions == [(11, epoch, step) for epoch in range(3) for step in range(STEPS)]
    for (found, dtype), expected in zip(seen, data.batches(0, 3, 0), strict=True):
        assert dtype == torch.float32
        assert set(found.images) == set(learner.method.views())
        for view, images in data.render(expected.views, CPU).items():
            assert torch.equal(found.images[view], images)
        for image, rows in expected.rows.items():
            assert found.rows[image].tolist() == rows.tolist()


def test_the_settings_precision_reaches_the_learner(run):
    dtypes = []

    def prepare(learner):
        forward = learner.forward
        learner.forward = lambda batch, dtype: dtypes.append(dtype) or forward(batch, dtype)

    run("moco", prepare=prepare, epochs=1, precision="bfloat16")
    assert dtypes == [torch.bfloat16] * STEPS


def test_running_means_are_means():
    values = torch.rand(7, 2)
    means = RunningMeans()
    for loss, other in values:
        means.add({"loss": loss, "other": other})
    assert means.read() == pytest.approx(dict(zip(("loss", "other"), values.mean(0).tolist(), strict=True)))
    assert means.first_bad_step() is None


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("step", [0, 3, 6])
@pytest.mark.parametrize("name", ["loss", "other"])
def test_running_means_name_the_first_step_that_is_not_finite(bad, step, name):
    means = RunningMeans()
    for i in range(7):
        values = {"loss": torch.tensor(1.0), "other": torch.tensor(2.0)}
        if i == step:
            values[name] = torch.tensor(bad)
        if i > step:  # a later fault of the opposite sign hides nothing
            values[name] = torch.tensor(-bad)
        means.add(values)
    assert means.first_bad_step() == step


def test_weights_that_the_last_step_spoils_are_neither_kept_nor_returned(run, tmp_path):
    def prepare(learner):
        step, after = [0], learner.after_step

        def spoil_weights():
            after()
            step[0] += 1
            if step[0] == 3 * STEPS:  # the very last: no loss sees it any more
                next(learner.parameters()).data[:] = math.nan

        learner.after_step = spoil_weights

    with pytest.raises(BingoError, match="a weight is not finite after epoch 3; the state after epoch 2 is kept"):
        run("moco", "spoilt", prepare=prepare)
    assert len(torch.load(tmp_path / "spoilt" / "state.pt", weights_only=True)["rows"]) == 2
