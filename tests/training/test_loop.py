import logging
import math
import signal
from functools import cache

import pytest
import torch
from torch import nn

from bingo.errors import BingoError
from bingo.study.sections import Steps
from bingo.training import loop
from bingo.training.loop import seed_step, train
from bingo.training.state import TrainingState
from bingo.training.step import StepInput
from bingo.training.train_method import MethodTask

from .conftest import CPU, STEPS, at_steps, same_bytes, stop_in


@pytest.fixture(scope="module")
def run_in(build, batches, training):
    """Return a function that trains a method in a folder; `prepare` may change its model first."""

    def run_in(folder, name, seed=0, prepare=lambda _model: None, identity="same", workers=0, **changes):
        model = build(name, seed)
        prepare(model)
        state = TrainingState(folder / "state.pt", identity)
        settings = training.model_copy(update=changes)
        return model, train(MethodTask(model, batches(model), settings, CPU), state, workers, "test")

    return run_in


@pytest.fixture
def run(run_in, tmp_path):
    """Train a method in the test's folder, or one below it."""
    return lambda name, folder="run", **options: run_in(tmp_path / folder, name, **options)


@pytest.fixture(scope="module")
def whole(run_in, tmp_path_factory):
    """Return a function from a method's name to the model and the rows of an uninterrupted run."""
    return cache(lambda name: run_in(tmp_path_factory.mktemp(name), name))


def recording(seen):
    """Return a preparation that adds to ``seen`` what a model's forward pass is given."""

    def prepare(model):
        forward = model.forward
        model.forward = lambda batch, dtype: seen.append((batch, dtype)) or forward(batch, dtype)

    return prepare


def spoil_loss(step, value=math.nan):
    """Return a preparation that makes the loss not finite in a step, counted from 1."""

    def prepare(model):
        forward, done = model.forward, []

        def spoilt(batch, dtype):
            values = forward(batch, dtype)
            done.append(1)
            return {name: v * value for name, v in values.items()} if len(done) == step else values

        model.forward = spoilt

    return prepare


@pytest.mark.parametrize(
    ("name", "step"),
    [
        ("moco", 2),  # in the middle of the first epoch
        ("moco", STEPS + 1),  # in the first step of the second
        ("moco", 3 * STEPS),  # in the very last step
        ("bingo", STEPS + 2),
        ("official", STEPS + 2),
        ("disco", STEPS + 1),
    ],
)
def test_an_interrupted_run_ends_with_the_bytes_of_an_uninterrupted_one(name, step, run, whole):
    expected, expected_rows = whole(name)
    with pytest.raises(KeyboardInterrupt):
        run(name, prepare=stop_in(step))
    # A first epoch that was not finished starts again, with the same initial weights.
    resumed, rows = run(name, seed=99 if step > STEPS else 0)
    assert rows == expected_rows
    assert same_bytes(resumed, expected)


def test_an_interrupted_run_of_a_network_that_draws_ends_with_the_same_bytes(run, whole):
    def with_dropout(model):
        model.head = nn.Sequential(nn.Dropout(0.5), model.head)

    def stopping(model):
        with_dropout(model)
        stop_in(STEPS + 2)(model)

    expected, expected_rows = run("moco", "whole", prepare=with_dropout)
    assert [row["loss"] for row in expected_rows] != [row["loss"] for row in whole("moco")[1]]
    with pytest.raises(KeyboardInterrupt):
        run("moco", prepare=stopping)
    torch.rand(5)  # the generator of a new process is somewhere else
    resumed, rows = run("moco", seed=99, prepare=with_dropout)
    assert rows == expected_rows
    assert same_bytes(resumed, expected)


def test_within_a_long_epoch_the_state_is_saved_from_time_to_time(run, whole, monkeypatch):
    monkeypatch.setattr("bingo.training.state._SECONDS_BETWEEN_SAVES", 0.0)
    with pytest.raises(KeyboardInterrupt):
        run("moco", prepare=stop_in(STEPS + 3))
    steps = []
    resumed, rows = run("moco", seed=99, prepare=lambda model: at_steps(model, steps.append))
    assert len(steps) == 3 * STEPS - STEPS - 2
    assert (rows, same_bytes(resumed, whole("moco")[0])) == (whole("moco")[1], True)


def test_each_step_of_each_seed_draws_from_a_generator_of_its_own():
    generators = set()
    for seed in (0, 1, 11):
        for epoch in range(3):
            for step in range(3):
                seed_step(seed, epoch, step)
                generators.add(torch.initial_seed())
    assert len(generators) == 27


def test_without_a_state_the_same_is_trained_and_no_signal_is_held_back(build, batches, training, whole, tmp_path):
    handlers, model = [], build("moco", 0)
    at_steps(model, lambda _: handlers.append(signal.getsignal(signal.SIGTERM)))
    before = signal.getsignal(signal.SIGTERM)
    rows = train(MethodTask(model, batches(model), training, CPU), None, 0, "test")
    assert (rows, same_bytes(model, whole("moco")[0])) == (whole("moco")[1], True)
    assert handlers == [before] * 3 * STEPS


def test_a_finished_state_is_read_without_training_again(run):
    expected, expected_rows = run("moco")
    steps = []
    model, rows = run("moco", seed=99, prepare=lambda model: at_steps(model, steps.append))
    assert (steps, rows) == ([], expected_rows)
    assert same_bytes(model, expected)


def test_a_model_is_trained_in_train_mode_and_with_any_number_of_workers(run, whole):
    model, rows = run("bingo", prepare=lambda model: model.eval(), workers=2)
    assert all(module.training for part in (model.backbone, model.head) for module in part.modules())
    assert rows == whole("bingo")[1]
    assert same_bytes(model, whole("bingo")[0])


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_stops_with_its_step_and_keeps_the_last_whole_epoch(value, run, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        run("moco", "expected", prepare=stop_in(STEPS + 1))
    expected = (tmp_path / "expected" / "state.pt").read_bytes()
    path = tmp_path / "spoilt" / "state.pt"
    with pytest.raises(BingoError, match=rf"step 5\b.*{path}.*training\.lr"):
        run("moco", "spoilt", prepare=spoil_loss(STEPS + 2, value))
    assert path.read_bytes() == expected


@pytest.mark.parametrize("epoch", [2, 3])
def test_weights_that_the_last_step_of_an_epoch_spoils_are_neither_kept_nor_returned(epoch, run, tmp_path):
    def prepare(model):  # no loss of the epoch sees it any more
        def spoil(step):
            if step == epoch * STEPS:
                model.head[2].bias.data[0] = math.inf

        at_steps(model, spoil)

    with pytest.raises(BingoError, match=rf"\b{epoch}\b.*{tmp_path}"):
        run("moco", prepare=prepare)
    state = torch.load(tmp_path / "run" / "state.pt", weights_only=True)
    assert [row["epoch"] for row in state["rows"]] == list(range(1, epoch))


def test_a_long_epoch_is_checked_before_it_ends(run, monkeypatch):
    monkeypatch.setattr(loop, "_STEPS_BETWEEN_CHECKS", 2)
    steps = []

    def prepare(model):
        spoil_loss(1)(model)
        at_steps(model, steps.append)

    with pytest.raises(BingoError, match=r"step 1\b"):
        run("moco", prepare=prepare)
    assert len(steps) == 2


def test_training_is_sgd_with_momentum_and_weight_decay_on_every_trainable_parameter(run, build, batches):
    found, rows = run("moco", epochs=2, lr=0.2, momentum=0.8, weight_decay=0.01)

    model = build("moco", 0).train()
    data = batches(model)
    trained = {name: p for name, p in model.named_parameters() if not name.startswith("momentum_encoder.")}
    velocity = {name: torch.zeros_like(p) for name, p in trained.items()}
    stream = data.batches(0, 2, 0)
    means = []
    for epoch, lr in enumerate((0.2, 0.1)):  # the cosine of a half turn in two epochs
        losses = []
        for step in range(STEPS):
            batch = next(stream)
            images = data.render(batch.views, CPU)
            loss = model(StepInput(11, epoch, step, images, batch.rows), torch.float32)["loss"]
            gradients = torch.autograd.grad(loss, list(trained.values()))
            losses.append(float(loss.detach()))
            with torch.no_grad():
                for (name, p), gradient in zip(trained.items(), gradients, strict=True):
                    velocity[name] = 0.8 * velocity[name] + gradient + 0.01 * p
                    p -= lr * velocity[name]
            model.after_step()
        means.append(sum(losses) / STEPS)
    torch.testing.assert_close(dict(found.state_dict()), dict(model.state_dict()), rtol=1e-3, atol=1e-4)
    assert [row["epoch"] for row in rows] == [1, 2]
    assert [row["lr"] for row in rows] == pytest.approx([0.2, 0.1])
    assert [row["loss"] for row in rows] == pytest.approx(means, rel=1e-4)


def test_a_row_per_epoch_is_returned_and_logged_with_the_terms_that_it_had(run, caplog):
    with caplog.at_level(logging.INFO):
        _, rows = run("official")
    assert [set(row) for row in rows] == [
        {"epoch", "lr", "loss", "intra", "cutmix"},
        *[{"epoch", "lr", "loss", "intra", "inter", "cutmix"}] * 2,
    ]
    for row in rows:
        assert row["loss"] == pytest.approx((row["intra"] + row.get("inter", 0) + row["cutmix"]) / 3, rel=1e-5)
        assert f"loss {row['loss']:.6g}" in caplog.text


def test_learning_rates_follow_the_schedule_of_the_settings(run):
    _, rows = run("moco", schedule=Steps(milestones=[1, 2], factor=0.5), lr=0.08)
    assert [row["lr"] for row in rows] == [0.08, 0.04, 0.02]


def test_a_model_sees_every_batch_in_the_settings_precision_and_where_it_stands_in_training(run, batches):
    seen = []
    model, _ = run("official", prepare=recording(seen), precision="bfloat16")
    data = batches(model)
    positions = [(batch.seed, batch.epoch, batch.step) for batch, _ in seen]
    assert positions == [(11, epoch, step) for epoch in range(3) for step in range(STEPS)]
    assert {dtype for _, dtype in seen} == {torch.bfloat16}
    for (found, _), expected in zip(seen, data.batches(0, 3, 0), strict=True):
        assert set(found.images) == set(model.method.views())
        for view, images in data.render(expected.views, CPU).items():
            assert torch.equal(found.images[view], images)
        for image, rows in expected.rows.items():
            assert found.rows[image].tolist() == rows.tolist()


def test_each_parameter_group_has_its_own_learning_rate_in_every_step(build, batches, training):
    model, seen = build("bingo", 0), []
    task = MethodTask(model, batches(model), training, CPU)
    task.optimizer = torch.optim.SGD([{"params": part.parameters()} for part in (model.backbone, model.head)])
    task.learning_rates = lambda epoch, step: [0.5, 0.1 / (1 + epoch * STEPS + step)]
    at_steps(model, lambda _: seen.append([group["lr"] for group in task.optimizer.param_groups]))
    rows = train(task, None, 0, "test")
    assert seen == [[0.5, 0.1 / (1 + step)] for step in range(3 * STEPS)]
    assert [row["lr"] for row in rows] == [0.5] * 3
