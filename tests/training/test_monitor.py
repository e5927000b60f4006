import copy
import itertools
import logging
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.summary.writer import event_file_writer
from torch import nn

from bingo.evaluation.knn import knn_accuracy
from bingo.study.protocols import PROTOCOLS
from bingo.training import distributed, monitor
from bingo.training.loop import train
from bingo.training.monitor import (
    EventWriter,
    Monitor,
    held_out_accuracy,
    is_collapsed,
    is_due,
    lowest_before_rise,
    monitored_rows,
)
from bingo.training.state import TrainingPosition, TrainingState
from bingo.training.train_method import MethodTask
from tests.noise import Noise

from ..conftest import disk_of
from .conftest import COUNT, CPU, STEPS, same_bytes, stop_in
from .processes import run_in_processes

# TensorBoard's writer thread raises where the disk is full.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")


def units(count, dim, seed=0):
    return F.normalize(torch.randn(count, dim, generator=torch.Generator().manual_seed(seed)), dim=1)


def labelled(model, batches):
    """Batches of the tiny dataset, whose images have labels of four classes."""
    data = batches(model)
    data.images = Noise(COUNT, 12)
    listing = data.images.listing
    data.images.listing = replace(listing, label=np.arange(COUNT) % 4, classes=list("abcd"))
    return data


@pytest.fixture
def run(build, batches, training, tmp_path):
    """Return a function that trains, monitored or not, and returns model, rows and monitor."""

    def run(name="moco", monitored=True, prepare=lambda _model: None, folder="run", seed=0, workers=0, **changes):
        model = build(name, seed)
        prepare(model)
        data, settings = labelled(model, batches), training.model_copy(update=changes)
        events = tmp_path / folder / "events"
        watch = Monitor(model, data, settings, CPU, workers, "test", events) if monitored else None
        state = TrainingState(tmp_path / folder / "state.pt", "same")
        return model, train(MethodTask(model, data, settings, CPU), state, 0, "test", watch), watch

    return run


def scalars(folder):
    """Read events as TensorBoard does: from tag to (epoch, value) pairs."""
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0}).Reload()
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


@pytest.mark.parametrize(
    ("count", "expected"), [(1, 1), (300, 300), (1000, 512), (6000, 600), (20480, 2048), (10**6, 2048)]
)
def test_a_tenth_is_watched_within_bounds(count, expected):
    rows = monitored_rows(count)
    assert len(set(rows.tolist())) == len(rows) == expected
    assert rows.dtype == np.int64
    assert 0 <= rows.min() <= rows.max() < count
    assert np.array_equal(rows, monitored_rows(count))
    assert count < 10 or not np.array_equal(rows, np.sort(rows))


@pytest.mark.parametrize(
    ("epochs", "expected"),
    [
        (1, [1]),
        (39, [*range(1, 40)]),
        (47, [*range(2, 47, 2), 47]),
        (200, [*range(10, 201, 10)]),
    ],
)
def test_networks_are_evaluated_about_twenty_times_and_after_the_last_epoch(epochs, expected):
    assert [epoch for epoch in range(1, epochs + 1) if is_due(epoch, epochs)] == expected


def test_held_out_accuracy_is_that_of_a_vote_among_the_ten_nearest():
    rng = np.random.default_rng(0)
    labels = torch.from_numpy(rng.integers(0, 3, 100))
    rows = F.normalize(units(100, 5) + 1.2 * F.one_hot(labels, 5), dim=1)
    right = 0
    for query in range(25):
        near = (rows[25:] @ rows[query]).argsort(descending=True)[:10]
        similar = {c: float((rows[25:][near] @ rows[query])[labels[25:][near] == c].sum()) for c in range(3)}
        votes = {c: (int((labels[25:][near] == c).sum()), similar[c]) for c in range(3)}
        right += max(votes, key=votes.get) == labels[query]
    assert 5 < right < 25
    assert held_out_accuracy(rows, labels, 3) == pytest.approx(4 * right)


def test_among_classes_with_the_same_votes_it_takes_the_one_that_knn_10_takes():
    rows = units(1, 4).expand(13, -1).contiguous()  # three ask, the other ten vote
    for first, second in itertools.permutations(range(7), 2):
        labels = torch.tensor([*[min(first, second)] * 3, *[first] * 5, *[second] * 5])
        expected = knn_accuracy(PROTOCOLS["knn-10"], rows[3:], labels[3:], rows[:3], labels[:3], 7)
        assert held_out_accuracy(rows, labels, 7) == expected["top1"]


def test_images_without_labels_neither_ask_nor_vote():
    labels = torch.arange(100) % 3
    rows = F.normalize(units(100, 3) + 2 * F.one_hot(labels, 3), dim=1)
    known = (torch.arange(100) % 5 > 0) | (torch.arange(100) == 0)
    partly = torch.where(known, labels, -1)
    wrong = rows.clone()
    wrong[~known] = rows[0]  # whatever these are, they change nothing
    assert held_out_accuracy(wrong, partly, 3) == held_out_accuracy(rows, partly, 3)


@pytest.mark.parametrize(
    "labels", [torch.full((100,), -1), torch.where(torch.arange(100) < 34, 0, -1), torch.zeros(12, dtype=torch.int64)]
)
def test_with_too_few_labels_there_is_no_accuracy(labels):
    assert held_out_accuracy(units(len(labels), 4), labels, 2) is None


def rows_of(losses, **terms):
    return [{"epoch": i + 1, "lr": 0.1, "loss": loss, **terms} for i, loss in enumerate(losses)]


def first_warning(losses, filled):
    """The epoch after which a rise would be said, with that of the lowest loss; None for never."""
    for epoch in range(1, len(losses) + 1):
        lowest = lowest_before_rise(rows_of(losses[:epoch]), filled)
        if lowest is not None:
            return epoch, int(lowest["epoch"])
    return None


@pytest.mark.parametrize(
    ("losses", "filled", "expected"),
    [
        ([8.3, 7.0, 6.1, 5.5, 5.4, 5.6, 5.3], 1, None),
        # MoCo on 1,000 images of Fashion-MNIST, whose queue of 4,096 is full after five epochs.
        ([5.72, 7.10, 7.58, 7.86, 7.92, 7.71, 7.45, 7.18, 6.99, 6.89, 6.85, 6.67, 6.64, 6.72, 6.84], 5, None),
        ([1.9, 4.6, 6.0, 6.9, 7.4, 7.6, 7.3, 6.8, 6.5], 5, None),
        ([1.9, 4.6, 6.0, 6.9, 7.4, 7.6, 7.3, 6.8, 6.5], 0, (3, 1)),
        # One that a large dataset fills in a part of its first epoch.
        ([6.4, 7.9, 7.5, 7.2, 7.1], 1, None),
        ([8.3, 6.0, 4.0, 5.9, 6.1], 1, (5, 3)),
        ([8.3, 6.0, 9.1], 1, (3, 2)),
        ([2.0, 9.0], 0, None),
        ([2.0, 2.9], 9, None),
        ([0.0, 0.0, 0.0, 0.0], 0, None),
        ([-0.90, -0.92, -0.95, -0.97], 0, None),
    ],
)
def test_a_rise_is_told_from_a_queue_that_fills(losses, filled, expected):
    assert first_warning(losses, filled) == expected


def test_a_term_that_joins_the_loss_is_no_rise():
    rows = [*rows_of([3.0, 2.0, 1.0], intra=1.0), *rows_of([2.5, 2.4], intra=1.0, inter=1.5)]
    assert lowest_before_rise(rows[:4], 0) is None
    assert lowest_before_rise([*rows, {**rows[-1], "loss": 3.7}], 0) == rows[4]


class Drawing(nn.Module):
    """A head that draws from torch's generator in training."""

    def __init__(self, head):
        super().__init__()
        self.head, self.dropout, self.norm = head, nn.Dropout(0.5), nn.BatchNorm1d(8)

    def forward(self, features):
        return self.norm(self.dropout(self.head(features)))


def with_drawing_head(model):
    model.head = Drawing(model.head)
    if model.momentum_encoder is not None:
        model.momentum_encoder[1] = copy.deepcopy(model.head).requires_grad_(False)


@pytest.mark.parametrize(("name", "workers"), [("moco", 1), ("official", 0)])
def test_a_monitored_training_ends_with_the_bytes_of_one_without_a_monitor(name, workers, run):
    expected, expected_rows, _ = run(name, monitored=False, prepare=with_drawing_head, folder="alone")
    generator = torch.get_rng_state()
    found, rows, _ = run(name, prepare=with_drawing_head, workers=workers)
    assert rows == expected_rows
    assert same_bytes(found, expected)
    assert torch.equal(torch.get_rng_state(), generator)
    assert all(module.training for module in found.modules())


def in_processes(build, batches, training, folder, watched):
    """Train in one of several processes, of which the first may watch; return weights and rows."""
    model = build("moco", 0)
    data = labelled(model, batches)
    data.rank, data.processes = distributed.rank(), distributed.processes()
    first = watched and distributed.is_first()
    watch = Monitor(model, data, training, CPU, 0, "test", folder / "events") if first else None
    state = TrainingState(folder / "state.pt", "same")
    rows = train(MethodTask(model, data, training, CPU), state, 0, "test", watch)
    return {name: tensor.numpy().tobytes() for name, tensor in model.state_dict().items()}, rows


@pytest.mark.slow
def test_of_several_processes_only_the_first_monitors(build, batches, training, tmp_path):
    expected = run_in_processes(2, in_processes, build, batches, training, tmp_path / "unwatched", False)
    found = run_in_processes(2, in_processes, build, batches, training, tmp_path / "watched", True)
    assert found == expected
    (file,) = (tmp_path / "watched" / "events").iterdir()
    assert [epoch for epoch, _ in scalars(file.parent)["knn/top1"]] == [1, 2, 3]


def test_what_is_watched_are_the_networks_in_eval_mode_on_centre_views(run, tmp_path):
    model, rows, _ = run("bingo")
    model.eval()
    chosen = monitored_rows(48)
    images = Noise(COUNT, 12).pixels[chosen].float()
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    with torch.no_grad():
        features = model.backbone(((images / 255) - mean.view(3, 1, 1)) / std.view(3, 1, 1))
        projections = model.head(features)
    found = scalars(tmp_path / "run" / "events")
    for name, outputs in (("features", features), ("projections", projections)):
        vectors = F.normalize(outputs, dim=1)
        assert found[f"{name}/similarity"][-1][1] == pytest.approx(float((vectors @ vectors.T).mean()), rel=1e-4)
        spread = vectors.var(0, correction=0).sqrt().mean() * vectors.shape[1] ** 0.5
        assert found[f"{name}/deviation"][-1][1] == pytest.approx(float(spread), rel=1e-3)
    labels = torch.from_numpy(chosen % 4)
    assert found["knn/top1"][-1][1] == pytest.approx(held_out_accuracy(F.normalize(features, dim=1), labels, 4))
    keys = model.queues["negatives"].keys
    assert found["queue/negatives_similarity"][-1][1] == pytest.approx(float((keys @ keys.T).mean()), rel=1e-4)
    assert found["queue/epochs"] == [(epoch, pytest.approx(40 / 48)) for epoch in (1, 2, 3)]
    for name in ("loss", "intra", "inter"):
        assert found[f"loss/{name}"] == [(row["epoch"], pytest.approx(row[name], rel=1e-6)) for row in rows]
    assert found["training/lr"] == [(row["epoch"], pytest.approx(row["lr"], rel=1e-6)) for row in rows]
    assert [epoch for epoch, _ in found["training/images_per_second"]] == [1, 2, 3]


@pytest.mark.parametrize("step", [STEPS + 2, 3 * STEPS])
def test_the_events_of_an_interrupted_training_go_on_as_if_nothing_had_happened(step, run, tmp_path, monkeypatch):
    # It numbers the files of one process, and TensorBoard reads them in the order of their names: 10 before 9.
    monkeypatch.setattr(event_file_writer, "_global_uid", event_file_writer.AtomicCounter(0))
    run(folder="whole")
    expected = scalars(tmp_path / "whole" / "events")
    with pytest.raises(KeyboardInterrupt):
        run(prepare=stop_in(step))
    # Written by a process that was killed between its events and its state.
    epoch = (step - 1) // STEPS + 1
    EventWriter(tmp_path / "run" / "events", epoch).write(epoch, {"loss/loss": 99.0})
    run(seed=99 if step > STEPS else 0)
    found = scalars(tmp_path / "run" / "events")
    del expected["training/images_per_second"]
    assert [epoch for epoch, _ in found.pop("training/images_per_second")] == [1, 2, 3]
    assert found == expected


def test_a_training_that_starts_anew_removes_old_events_and_nothing_else(run, tmp_path):
    folder = tmp_path / "run" / "events"
    folder.mkdir(parents=True)
    (folder / "events.out.tfevents.0000000001.host.1").write_bytes(b"old")
    (folder / "notes.txt").write_text("mine")
    run(epochs=1)
    assert {path.name for path in folder.iterdir()} - {"notes.txt"} == {
        path.name for path in folder.glob("events.out.tfevents.*") if path.stat().st_size > 100
    }
    assert (folder / "notes.txt").read_text() == "mine"
    assert [epoch for epoch, _ in scalars(folder)["loss/loss"]] == [1]


@pytest.mark.parametrize(
    ("similarity", "steps", "expected"), [(0.96, 200, True), (1.0, 199, False), (0.95, 10**6, False), (0.3, 200, False)]
)
def test_a_collapse_is_told_from_a_network_that_has_only_begun(similarity, steps, expected):
    assert is_collapsed(similarity, steps) == expected


def warnings_of(caplog):
    return [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]


@pytest.mark.parametrize("whole", [0, 2])
def test_events_end_where_the_disk_is_full_with_one_warning(whole, tmp_path, caplog):
    fitting = EventWriter(tmp_path / "fitting", 1)
    for epoch in range(1, whole + 1):
        fitting.write(epoch, {"loss/loss": 1.0})
    (file,) = (tmp_path / "fitting").iterdir()
    with disk_of(file.stat().st_size + 10):  # not enough for one more
        events = EventWriter(tmp_path / "events", 1)
        for epoch in (1, 2, 3):
            events.write(epoch, {"loss/loss": 1.0})
    events.write(4, {"loss/loss": 1.0})
    (message,) = warnings_of(caplog)
    assert message.startswith(f"--events: {tmp_path / 'events'}")
    assert [epoch for epoch, _ in scalars(tmp_path / "events").get("loss/loss", [])] == [1, 2, 3][:whole]


def collapse(model):
    for module in model.head:
        if isinstance(module, nn.Linear):
            nn.init.zeros_(module.weight)
            nn.init.ones_(module.bias)
    model.head.requires_grad_(False)


def test_a_sound_training_triggers_no_warning_and_its_results_are_summarised(run, tmp_path, caplog):
    _, rows, watch = run("moco", lr=0.01)
    assert warnings_of(caplog) == []
    found = scalars(tmp_path / "run" / "events")
    facts = f"{rows[0]['loss']:.4g}", f"{rows[-1]['loss']:.4g}", f"{found['knn/top1'][-1][1]:.1f} %"
    assert all(fact in watch.summary(rows) for fact in facts)
    assert f"{found['projections/similarity'][-1][1]:.3f}" in watch.summary(rows)


def test_a_loss_that_rises_triggers_one_warning(run, caplog):
    def prepare(model):
        forward = model.forward

        def rising(batch, dtype):
            values = forward(batch, dtype)
            return {"loss": values["loss"] * 0 + (1.0 if batch.epoch < 2 else 2.0)}

        model.forward = rising

    run(prepare=prepare, epochs=5, lr=0.01)
    (message,) = (message for message in warnings_of(caplog) if "training.lr" in message)
    assert "epoch 3" in message


@pytest.mark.parametrize(("size", "warnings"), [(COUNT, 0), (COUNT + 1, 1)])
def test_a_queue_larger_than_the_dataset_triggers_a_warning(size, warnings, build, batches, training, caplog):
    model = build("moco", 0)
    object.__setattr__(model, "method", model.method.model_copy(update={"queue_size": size}))
    Monitor(model, batches(model), training, CPU, 0, "test", None).begin(TrainingPosition())
    assert len(warnings_of(caplog)) == warnings
    assert all("queue_size" in message for message in warnings_of(caplog))


@pytest.mark.parametrize("name", ["moco", "bingo"])
def test_a_collapse_triggers_one_warning_that_names_its_cause(name, run, caplog, monkeypatch):
    monkeypatch.setattr(monitor, "WARMUP_STEPS", 2 * STEPS)

    def prepare(model):
        collapse(model)
        if model.teacher:
            model.teacher.outputs = lambda _layer, _view, batch, _images: torch.ones(len(batch.rows["anchor"]), 8)

    run(name, prepare=prepare)
    (message,) = warnings_of(caplog)
    assert "epoch 2" in message
    assert "training.lr" in message if name == "moco" else "teacher" in message
