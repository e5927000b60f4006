"""Training from stored teacher outputs is training with the teacher."""

import shutil
from dataclasses import dataclass
from pathlib import Path

import h5py
import pandas as pd
import pytest
import safetensors.torch
import torch
import torch.nn.functional as F
from pydantic import TypeAdapter

from bingo.artifacts.tensors import read_metadata
from bingo.errors import BingoError
from bingo.models.checkpoint import load_teacher
from bingo.stages import student as stage
from bingo.study.jobs import StudentJob
from bingo.study.schema import Student
from bingo.training.model import TrainingModel
from bingo.training.teacher import OnlineTeacher

from .conftest import COUNT

CPU = torch.device("cpu")
EPOCHS, STEPS, BATCH = 3, 2, 16
COMMON = {
    "backbone": {"architecture": "resnet10", "stem": "small", "width": 1 / 16},
    "training": {
        "epochs": EPOCHS,
        "batch_size": BATCH,
        "lr": 0.02,
        "schedule": "cosine",
        "views": "small",
        "precision": "float32",
    },
    "queue_size": 23,
}
METHODS = {
    "bingo": {"method": "bingo", "bags": "b", "head": {"hidden": 16}},
    "official": {
        "method": "bingo",
        "objective": "official",
        "inter_free_epochs": 1,
        "bags": "b",
        "head": {"hidden": 9},
    },
    "seed": {"method": "seed", "teacher": "t", "teacher_temperature": 0.1},
    "disco": {"method": "disco", "teacher": "t", "head": {"hidden": 16}, "key_momentum": 0.9},
    "compress 1q": {"method": "compress", "teacher": "t", "variant": "1q", "temperature": 0.2},
    "compress 2q": {"method": "compress", "teacher": "t", "key_momentum": 0.9, "temperature": 0.2},
}


@dataclass
class Run:
    """What a student saw and what it made of it, step by step."""

    batches: list
    targets: list
    losses: list
    folder: object


def settings_of(name, **changes):
    return TypeAdapter(Student).validate_python(COMMON | METHODS[name] | changes)


def train_student(settings, preprocessing, output, seed=0, **files):
    network = {"preprocessing": preprocessing, "student": settings, "seed": seed}
    stage.run(StudentJob(**network, name="s", output=output, **files), CPU, 0)


@pytest.fixture
def files_of(targets_of):
    """The stored outputs that a student needs: settings -> paths, in the order of the views' numbers."""

    def files_of(settings, views, **changes):
        numbers = settings.teacher_view_slots()
        return [targets_of(views=views, layer=settings.layer, number=number, **changes) for number in numbers]

    return files_of


@pytest.fixture
def record(monkeypatch):
    """Record every step of every learner from now on."""
    run = Run([], [], [], None)
    forward = TrainingModel.forward

    def recording(learner, batch, dtype):
        source = learner.teacher
        targets = {}
        if not isinstance(source, Watched):
            learner.teacher = Watched(source)
        learner.teacher.targets = targets
        values = forward(learner, batch, dtype)
        run.batches.append(batch)
        run.targets.append(targets)
        run.losses.append({name: float(value.detach()) for name, value in values.items()})
        return values

    monkeypatch.setattr(TrainingModel, "forward", recording)
    return run


class Watched:
    """A source of teacher outputs that remembers them."""

    def __init__(self, source):
        self.source = source
        self.targets = {}

    def width(self, layer):
        return self.source.width(layer)

    def outputs(self, layer, view, batch, images):
        found = self.source.outputs(layer, view, batch, images)
        self.targets[layer, view.slot, view.image] = F.normalize(found.float(), dim=1).clone()
        return found


@pytest.fixture
def train(record, demo, teacher, bags_of, preprocessing, files_of, tmp_path):
    """Train a student with the teacher or from stored outputs, and return what was recorded."""

    def train(name, views="online", seed=0, folder="student", **changes):
        settings = settings_of(name, teacher_views=views, **changes)
        files = {"teacher": teacher.path} if views == "online" else {"targets": files_of(settings, views)}
        if settings.draws_positives():
            files["bags"] = bags_of(teacher)
        record.batches, record.targets, record.losses = [], [], []
        output = tmp_path / folder
        train_student(settings, preprocessing, output, seed, listing=demo.path, **files)
        return Run(record.batches, record.targets, record.losses, output)

    return train


@pytest.fixture
def rounding(monkeypatch):
    """Let the online teacher's outputs be rounded as stored ones are."""
    outputs = OnlineTeacher.outputs

    def rounded(*arguments):
        return F.normalize(outputs(*arguments).float(), dim=1).half().float()

    monkeypatch.setattr(OnlineTeacher, "outputs", rounded)


@pytest.fixture
def no_teacher(monkeypatch):
    """Return a function after whose call no teacher can be loaded or used any more."""

    def forbid():
        monkeypatch.setattr(stage, "load_teacher", lambda *_: pytest.fail("a teacher was loaded"))
        monkeypatch.setattr(OnlineTeacher, "__init__", lambda *_: pytest.fail("a teacher was used"))

    return forbid


def require_same_inputs(online, stored, method):
    """Compare what both students were shown: the very same images, but for those that the teacher alone sees."""
    assert len(online.batches) == len(stored.batches) == EPOCHS * STEPS
    for one, other in zip(online.batches, stored.batches, strict=True):
        assert (one.seed, one.epoch, one.step) == (other.seed, other.epoch, other.step)
        assert set(one.images) == set(method.views())
        assert set(other.images) == {name for name, view in method.views().items() if view.student}
        assert all(torch.equal(one.images[name], images) for name, images in other.images.items())
        assert {image: rows.tolist() for image, rows in one.rows.items()} == {
            image: rows.tolist() for image, rows in other.rows.items()
        }


@pytest.mark.parametrize("name", METHODS)
def test_as_many_stored_views_as_epochs_train_as_the_teacher_does_within_rounding(name, train, no_teacher):
    online = train(name, folder="online")
    no_teacher()
    stored = train(name, EPOCHS, folder="stored")
    require_same_inputs(online, stored, settings_of(name))
    for one, other in zip(online.targets, stored.targets, strict=True):
        assert list(one) == list(other)
        for key, target in one.items():
            torch.testing.assert_close(other[key], target, rtol=0, atol=6e-4)
    for one, other in zip(online.losses, stored.losses, strict=True):
        assert other == pytest.approx(one, rel=2e-3, abs=2e-3)
    logs = [pd.read_csv(run.folder / "log.csv") for run in (online, stored)]
    pd.testing.assert_frame_equal(*logs, rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("name", METHODS)
def test_a_teacher_whose_outputs_are_rounded_trains_as_the_stored_views_do(name, train, rounding):
    online, stored = train(name, folder="online"), train(name, EPOCHS, folder="stored")
    require_same_inputs(online, stored, settings_of(name))
    # What is left is the order of sums: other images share the teacher's batch.
    for step, (one, other) in enumerate(zip(online.losses, stored.losses, strict=True)):
        assert other == pytest.approx(one, rel=2e-5 if step == 0 else 5e-4, abs=2e-5)
    ours, theirs = (safetensors.torch.load_file(run.folder / "backbone.safetensors") for run in (stored, online))
    for key, value in theirs.items():
        torch.testing.assert_close(ours[key], value, rtol=1e-2, atol=1e-3, msg=lambda m, n=key: f"{n}: {m}")


@pytest.mark.parametrize("views", [1, 2])
@pytest.mark.parametrize("name", METHODS)
def test_fewer_stored_views_than_epochs_return_in_turn(name, views, train, files_of):
    settings = settings_of(name)
    stored = {}
    for number, path in zip(settings.teacher_view_slots(), files_of(settings, views), strict=True):
        with h5py.File(path) as file:
            stored[number] = file["target"][:]
    run = train(name, views)
    shown = {}
    for batch, targets in zip(run.batches, run.targets, strict=True):
        wanted = {(settings.layer, v.slot, v.image) for v in settings.views().values() if v.teacher}
        assert set(targets) == wanted
        for (_, number, image), found in targets.items():
            expected = stored[number][:, batch.epoch % views][batch.rows[image]]
            torch.testing.assert_close(found, F.normalize(torch.from_numpy(expected).float(), dim=1))
        for view_name, view in settings.views().items():
            if view.student:
                for row, image in zip(batch.rows[view.image].tolist(), batch.images[view_name], strict=True):
                    shown.setdefault((view_name, row), {})[batch.epoch] = image
    repeated = 0
    for (view_name, _), by_epoch in shown.items():
        for epoch, image in by_epoch.items():
            if epoch >= views and epoch - views in by_epoch:
                # Views that the teacher sees return with its outputs; the student's own never do.
                assert torch.equal(image, by_epoch[epoch - views]) == settings.views()[view_name].teacher
                repeated += 1
    assert repeated > 10


@pytest.mark.parametrize("name", METHODS)
def test_stored_views_are_the_same_for_every_seed_and_the_students_own_are_not(name, train):
    settings = settings_of(name)
    by_seed = []
    for seed in (0, 1):
        run = train(name, seed=seed, folder=str(seed), training={**COMMON["training"], "epochs": 2})
        shown = {}
        for batch in run.batches:
            for view_name, view in settings.views().items():
                for row, image in zip(batch.rows[view.image].tolist(), batch.images[view_name], strict=True):
                    shown[view_name, row, batch.epoch] = image
        by_seed.append(shown)
    compared = dict.fromkeys(settings.views(), 0)
    for key in set(by_seed[0]) & set(by_seed[1]):
        same = torch.equal(by_seed[0][key], by_seed[1][key])
        assert same == settings.views()[key[0]].teacher, key
        compared[key[0]] += 1
    assert min(compared.values()) > 20


def test_no_two_views_of_a_step_are_the_same_even_for_seed_0(train):
    for name in METHODS:
        keys = {"inter_free_epochs": 0} if name == "official" else {}
        run = train(name, seed=0, folder=name, training={**COMMON["training"], "epochs": 1}, **keys)
        for batch in run.batches:
            views = list(batch.images)
            for i, first in enumerate(views):
                for second in views[:i]:
                    assert not torch.equal(batch.images[first], batch.images[second]), (name, first, second)


def test_a_student_says_what_it_was_trained_from(train, targets_of, files_of, teacher, demo):
    run = train("bingo", 2)
    with h5py.File(targets_of(views=2)) as file:
        targets = file.attrs["digest"]
    inputs = read_metadata(run.folder / "backbone.safetensors")["provenance"]["inputs"]
    assert set(inputs) == {"dataset", "teacher", "targets-0", "bags"}
    assert inputs["dataset"] == demo.listing.digest
    assert inputs["teacher"] == load_teacher(teacher.path, CPU).digest
    assert inputs["targets-0"] == targets
    assert set(read_metadata(train("seed").folder / "head.safetensors")["provenance"]["inputs"]) == {
        "dataset",
        "teacher",
    }
    digests = []
    for path in files_of(settings_of("disco"), 1):
        with h5py.File(path) as file:
            digests.append(file.attrs["digest"])
    inputs = read_metadata(train("disco", 1).folder / "backbone.safetensors")["provenance"]["inputs"]
    assert [inputs["targets-0"], inputs["targets-1"]] == digests
    assert set(inputs) == {"dataset", "teacher", "targets-0", "targets-1"}


ONE_TERM = {"intra": ({"anchor", "anchor_target"}, False), "inter": ({"positive", "anchor_target"}, True)}


@pytest.mark.parametrize("term", ONE_TERM)
@pytest.mark.parametrize("views", ["online", 1])
def test_one_term_of_the_paper_is_trained_from_the_views_it_needs(term, views, train):
    expected, with_bags = ONE_TERM[term]
    run = train("bingo", views, terms=[term], training={**COMMON["training"], "epochs": 1})
    for batch in run.batches:
        assert set(batch.images) == (expected if views == "online" else expected - {"anchor_target"})
    assert all(set(losses) == {"loss", term} for losses in run.losses)
    inputs = read_metadata(run.folder / "backbone.safetensors")["provenance"]["inputs"]
    assert ("bags" in inputs) == with_bags


def refusal(call):
    with pytest.raises(BingoError) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.fixture
def refused(demo, teacher, bags_of, preprocessing, targets_of, tmp_path):
    """Return the line with which a student is refused; what is not given is what would fit."""

    def refused(name="bingo", **changes):
        inputs = {
            "preprocessing": preprocessing,
            "listing": demo.path,
            "targets": [targets_of()],
            "bags": bags_of(teacher),
            **changes,
        }
        settings = settings_of(name, **inputs.pop("settings", {"teacher_views": 2}))
        line = refusal(lambda: train_student(settings, output=tmp_path / "student", **inputs))
        assert not list(tmp_path.rglob("*.safetensors"))
        return line

    return refused


def test_targets_that_do_not_fit_are_refused(
    refused, targets_of, list_demo, make_teacher, bags_of, preprocessing, teacher
):
    path = targets_of()
    training = COMMON["training"]
    assert refused(listing=list_demo(COUNT - 2).path).startswith(f"{path}: belongs to another dataset")
    for views in (1, 3):
        assert refused(settings={"teacher_views": views}).startswith(f"{path}: holds other outputs")
    assert refused("compress 1q", bags=None).startswith(f"{path}: holds other outputs")
    second = targets_of(number=1)
    assert refused("seed", bags=None, targets=[second]).startswith(f"{second}: holds other outputs")
    for change in ({"views": "paper"}, {"precision": "bfloat16"}):
        line = refused(settings={"teacher_views": 2, "training": {**training, **change}})
        assert line.startswith(f"{path}: holds other outputs")
    line = refused(preprocessing=preprocessing.model_copy(update={"size": 20}))
    assert line.startswith(f"{path}: holds other outputs")
    other = make_teacher(1)
    bags = bags_of(other)
    assert refused(bags=bags).startswith(f"{bags}: belongs to another teacher")
    line = refused(targets=[targets_of(teacher=other)])
    assert line.startswith(f"{bags_of(teacher)}: belongs to another teacher")
    assert str(targets_of(teacher=other)) in line


def test_the_files_of_both_numbers_are_of_one_teacher_and_in_order(refused, targets_of, make_teacher):
    first, second, foreign = targets_of(), targets_of(number=1), targets_of(number=1, teacher=make_teacher(1))
    line = refused("disco", bags=None, targets=[first, foreign])
    assert line.startswith(f"{foreign}: belongs to another teacher")
    assert str(first) in line
    assert refused("disco", bags=None, targets=[second, first]).startswith(f"{second}: holds other outputs")
    assert refused("disco", bags=None, targets=[first, first]).startswith(f"{first}: holds other outputs")


def test_a_file_too_few_or_too_many_is_refused(refused, targets_of):
    first, second = targets_of(), targets_of(number=1)
    for name, targets in (("disco", [first]), ("disco", [first, second, second]), ("seed", [first, second])):
        line = refused(name, bags=None, targets=targets)
        assert line == f"student s: 2 stored teacher views need --targets {2 if name == 'disco' else 1} times"


def test_a_damaged_file_of_a_second_number_is_refused(refused, targets_of, tmp_path):
    path = shutil.copy(targets_of(number=1), tmp_path / "second.h5")
    path.write_bytes(path.read_bytes()[:-100])
    assert refused("disco", bags=None, targets=[targets_of(), path]).startswith(f"{path}: truncated or damaged")


def test_an_input_that_is_missing_is_asked_for_by_its_flag(refused, teacher, tmp_path):
    assert "--targets" in refused(targets=[])
    assert "--targets" in refused(targets=[], teacher=teacher.path)
    assert "--teacher" in refused(settings={})
    assert "--bags" in refused(bags=None)
    assert refused(targets=[tmp_path / "missing.h5"]) == f"{tmp_path / 'missing.h5'}: no such file"


def test_a_network_that_cannot_take_images_of_the_size_is_refused(refused, transformer):
    backbone = {"architecture": "timm/vit_tiny_patch16_224"}
    lines = [
        refused("seed", bags=None, settings={"teacher_views": 2, "backbone": backbone}),
        refused("seed", bags=None, teacher=transformer, targets=[], settings={}),
    ]
    for line in lines:
        assert line.startswith("backbone: cannot take images of 16 px (")


def test_an_online_teacher_that_did_not_make_the_bags_is_refused(refused, make_teacher, bags_of, teacher):
    other = make_teacher(1)
    line = refused(settings={}, teacher=other.path, targets=[])
    assert line.startswith(f"{bags_of(teacher)}: belongs to another teacher")


def test_stored_outputs_beside_an_online_teacher_are_refused(refused, teacher):
    line = refused(settings={}, teacher=teacher.path)
    assert line == "student s: --targets serve stored teacher views, but its teacher is online"


def test_bags_without_a_teacher_go_with_any(demo, make_teacher, bags_of, preprocessing, targets_of, tmp_path):
    other = make_teacher(1)
    for folder, views, files in (
        ("online", "online", {"teacher": other.path}),
        ("stored", 1, {"targets": [targets_of(views=1, teacher=other)]}),
    ):
        settings = settings_of("bingo", teacher_views=views, training={**COMMON["training"], "epochs": 1})
        files |= {"listing": demo.path, "bags": bags_of(None)}
        train_student(settings, preprocessing, tmp_path / folder, **files)
        assert (tmp_path / folder / "backbone.safetensors").exists()


def test_an_interrupted_training_from_stored_views_ends_with_the_bytes_of_an_uninterrupted_one(
    train, record, monkeypatch
):
    whole = train("official", 2, folder="whole")
    after_step = TrainingModel.after_step

    def stop(learner):
        if len(record.losses) == STEPS + 2:  # in the second epoch, which has another stored view
            raise KeyboardInterrupt
        after_step(learner)

    monkeypatch.setattr(TrainingModel, "after_step", stop)
    with pytest.raises(KeyboardInterrupt):
        train("official", 2, folder="stopped")
    monkeypatch.setattr(TrainingModel, "after_step", after_step)
    resumed = train("official", 2, folder="stopped")
    assert len(resumed.losses) == (EPOCHS - 1) * STEPS
    assert resumed.losses == whole.losses[STEPS:]
    for name in ("backbone.safetensors", "head.safetensors", "log.csv"):
        assert (resumed.folder / name).read_bytes() == (whole.folder / name).read_bytes()


def test_an_interrupted_training_of_a_network_that_draws_ends_with_the_same_bytes(train, record, monkeypatch):
    pytest.importorskip("timm")
    settings = {"backbone": {"architecture": "timm/ghostnet_100"}}  # has dropout
    whole = train("seed", folder="whole", **settings)
    after_step = TrainingModel.after_step

    def stop(learner):
        after_step(learner)
        if len(record.losses) == STEPS + 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(TrainingModel, "after_step", stop)
    with pytest.raises(KeyboardInterrupt):
        train("seed", folder="stopped", **settings)
    monkeypatch.setattr(TrainingModel, "after_step", after_step)
    torch.rand(7)
    resumed = train("seed", folder="stopped", **settings)
    assert resumed.losses == whole.losses[STEPS:]
    for name in ("backbone.safetensors", "head.safetensors", "log.csv"):
        assert (resumed.folder / name).read_bytes() == (whole.folder / name).read_bytes()


def test_settings_survive_the_command_line(preprocessing):
    for name in METHODS:
        files = {"listing": Path("listing.h5"), "output": Path("s")}
        settings = {"preprocessing": preprocessing, "student": settings_of(name, teacher_views=2), "seed": 0}
        job = StudentJob(**settings, name="s", **files)
        assert StudentJob.read(job.identity, {"name": "s", **files}).settings == job.settings
