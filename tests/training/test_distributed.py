"""Processes that share a job do what one process does: losses within 1e-5, the same queue, the same data."""

import os
import signal

import numpy as np
import pytest
import torch
from torch import nn

from bingo.errors import BingoError
from bingo.training import distributed
from bingo.training.loop import train
from bingo.training.model import TrainingModel
from bingo.training.state import TrainingState
from bingo.training.step import StepInput, TrainingStep
from bingo.training.train_method import MethodTask

from .conftest import CPU, at_steps
from .processes import run_in_processes


def rows_of_three_processes():
    own = torch.arange(distributed.rank() * 2, dtype=torch.float32)[:, None]  # none, two, four
    shared = list(distributed.compute_shared(range(7), lambda places: (place * 10 for place in places)))
    means = distributed.mean({"a": torch.tensor(float(distributed.rank())), "b": torch.tensor(1.0)})
    return (
        distributed.gather_rows(own)[:, 0].tolist(),
        shared,
        {name: float(value) for name, value in means.items()},
        [distributed.any_process(distributed.rank() == 2), distributed.any_process(False)],
        distributed.broadcast_from_first(lambda: f"made by {distributed.rank()}"),
    )


def test_what_processes_tell_each_other():
    for rank, (rows, shared, means, answers, made) in enumerate(run_in_processes(3, rows_of_three_processes)):
        assert rows == [0, 1, 0, 1, 2, 3]
        assert shared == ([0, 10, 20, 30, 40, 50, 60] if rank == 0 else [])
        assert means == {"a": 1.0, "b": 1.0}
        assert answers == [True, False]
        assert made == "made by 0"


def without_batch_norm(network):
    for parent in list(network.modules()):
        for name, layer in parent.named_children():
            if isinstance(layer, nn.BatchNorm2d):
                setattr(parent, name, nn.GroupNorm(1, layer.num_features).requires_grad_(layer.weight.requires_grad))


@pytest.fixture(scope="module")
def run(build, batches, training):
    """Return a function that trains in one of several processes; it returns logged rows, batches, queues, weights."""

    def run(name, folder, stop=None):
        model: TrainingModel = build(name, 0)
        without_batch_norm(model)
        data = batches(model)
        data.rank, data.processes = distributed.rank(), distributed.processes()
        seen, forward = [], model.forward

        def watched(batch, dtype):
            seen.append(distributed.gather_rows(torch.from_numpy(batch.rows["anchor"])).tolist())
            return forward(batch, dtype)

        def end_process(step):
            if stop == (step, distributed.rank()):
                os.kill(os.getpid(), signal.SIGTERM)

        model.forward = watched
        at_steps(model, end_process)
        state = TrainingState(folder / "state.pt", "same")
        try:
            rows = train(MethodTask(model, data, training, CPU), state, 0, "test")
        except BingoError as error:
            return str(error), seen
        except SystemExit as end:
            return end.code, seen
        queues = {name: queue.keys for name, queue in model.queues.items()}
        return rows, seen, queues, model.head.state_dict()

    return run


def assert_same(first, second, tolerance):
    (rows, seen, queues, weights), (others, seen_by_others, other_queues, other_weights) = first, second
    assert seen == seen_by_others
    for row, other in zip(rows, others, strict=True):
        assert row == pytest.approx(other, abs=tolerance)
    torch.testing.assert_close(dict(queues), dict(other_queues), atol=tolerance, rtol=0)
    torch.testing.assert_close(dict(weights), dict(other_weights), atol=tolerance, rtol=0)


SLOW = pytest.mark.slow


@pytest.mark.parametrize("name", ["official", pytest.param("moco", marks=SLOW), pytest.param("disco", marks=SLOW)])
def test_two_processes_train_as_one(name, run, tmp_path):
    alone = run(name, tmp_path / "one")
    first, second = run_in_processes(2, run, name, tmp_path / "two")
    assert_same(first, alone, 1e-5)
    assert_same(second, first, 0)


@SLOW
@pytest.mark.parametrize("asked", [0, 1])
def test_a_run_stopped_in_one_process_goes_on_in_two_and_back(asked, run, tmp_path):
    alone = run("moco", tmp_path / "alone")
    message, seen = run("moco", tmp_path, stop=(2, 0))
    assert str(tmp_path / "state.pt") in message
    # A signal to one of them stops both after the same step.
    told = run_in_processes(2, run, "moco", tmp_path, (3, asked))
    assert [len(steps) for _, steps in told] == [3, 3]
    assert str(tmp_path / "state.pt") in told[0][0]
    assert told[1][0] == 1  # without a message of its own
    rows, rest, queues, weights = run("moco", tmp_path)
    assert_same((rows, [*seen, *told[0][1], *rest], queues, weights), alone, 1e-5)


def keys_of_shuffled_halves(build, images):
    model = build("moco", 0)
    own = images[distributed.rank() * 8 :][:8]
    step = TrainingStep(model, StepInput(0, 0, 1, {}, {}), torch.float32)
    statistics = []
    model.momentum_encoder[0].bn1.register_forward_pre_hook(
        lambda _, inputs: statistics.append(inputs[0].mean((0, 2, 3)))
    )
    model.momentum_encoder.eval()  # the keys of an image do not depend on its company
    return step.momentum(own), statistics[0]


def test_keys_are_computed_in_other_company_and_come_back_in_order(build):
    images = torch.randn(16, 3, 12, 12, generator=torch.Generator().manual_seed(0))
    model = build("moco", 0)
    model.update_momentum_encoder()
    encoder = model.momentum_encoder.eval()
    with torch.no_grad():
        expected = nn.functional.normalize(encoder(images), dim=1)
        halves = [encoder[0].conv1(half).mean((0, 2, 3)) for half in images.split(8)]
    found = run_in_processes(2, keys_of_shuffled_halves, build, images)
    torch.testing.assert_close(torch.cat([keys for keys, _ in found]), expected, atol=1e-5, rtol=0)
    for (_, mean), unshuffled in zip(found, halves, strict=True):
        assert not np.allclose(mean, unshuffled, atol=1e-4)
