"""Training a student: from stored teacher outputs as with the teacher itself."""

from types import SimpleNamespace

import h5py
import pandas as pd
import pytest
import safetensors.torch
import torch
import torch.nn.functional as F
from pydantic import TypeAdapter

from bingo.artifacts.tensors import read_metadata
from bingo.bags.bags import read_bags
from bingo.errors import BingoError
from bingo.models.checkpoint import load_teacher
from bingo.stages import student as stage
from bingo.study.jobs import StudentJob
from bingo.study.schema import Student
from bingo.training.model import TrainingModel
from bingo.training.teacher import OnlineTeacher

from .conftest import COUNT, CPU, INPUT

EPOCHS, STEPS = 3, 2
TRAINING = {"epochs": EPOCHS, "batch_size": 16, "lr": 0.02, "views": "small", "precision": "float32"}
COMMON = {
    "backbone": {"architecture": "resnet10", "stem": "small", "width": 1 / 16},
    "training": {**TRAINING, "schedule": "cosine"},
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


def settings_of(name, **changes):
    return TypeAdapter(Student).validate_python(COMMON | METHODS[name] | changes)


def train_student(settings, output, **fields):
    job = {"preprocessing": INPUT, "seed": 0, "name": "s", **fields}
    stage.run(StudentJob(student=settings, output=output, **job), CPU, 0)


@pytest.fixture
def files_of(targets_of):
    """The stored outputs that a student needs: settings -> paths, in the order of the views' slots."""

    def files_of(settings, views):
        numbers = settings.teacher_view_slots()
        return [targets_of(views=views, layer=settings.layer, number=number) for number in numbers]

    return files_of


@pytest.fixture
def record(monkeypatch):
    """Batches and losses of every step from now on."""
    run = SimpleNamespace(batches=[], losses=[])
    forward = TrainingModel.forward

    def recording(model, batch, dtype):
        values = forward(model, batch, dtype)
        run.batches.append(batch)
        run.losses.append({name: float(value.detach()) for name, value in values.items()})
        return values

    monkeypatch.setattr(TrainingModel, "forward", recording)
    return run


@pytest.fixture
def train(record, demo, teacher, bags_of, files_of, tmp_path):
    """Train a student with the teacher or from stored outputs, and return what was recorded."""

    def train(name, views="online", folder="student", **changes):
        settings = settings_of(name, teacher_views=views, **changes)
        files = {"teacher": teacher.path} if views == "online" else {"targets": files_of(settings, views)}
        if settings.draws_positives():
            files["bags"] = bags_of(teacher)
        record.batches, record.losses = [], []
        train_student(settings, tmp_path / folder, listing=demo.path, **files)
        return SimpleNamespace(**vars(record), folder=tmp_path / folder)

    return train


@pytest.fixture
def rounding(monkeypatch):
    """Let the online teacher's outputs be rounded as stored ones are."""
    outputs = OnlineTeacher.outputs

    def rounded(*arguments):
        return F.normalize(outputs(*arguments).float(), dim=1).half().float()

    monkeypatch.setattr(OnlineTeacher, "outputs", rounded)


@pytest.mark.parametrize("name", METHODS)
def test_as_many_stored_views_as_epochs_train_as_the_teacher_does(name, train, rounding, monkeypatch):
    online = train(name, folder="online")
    monkeypatch.setattr(stage, "load_teacher", lambda *_: pytest.fail("a teacher was loaded"))
    stored = train(name, EPOCHS, folder="stored")
    views = settings_of(name).views()
    assert len(online.batches) == len(stored.batches) == EPOCHS * STEPS
    for one, other in zip(online.batches, stored.batches, strict=True):
        assert set(one.images) == set(views)
        assert set(other.images) == {name for name, view in views.items() if view.student}
        assert all(torch.equal(one.images[name], images) for name, images in other.images.items())
        shown = list(one.images.values())
        assert not any(torch.equal(first, second) for i, first in enumerate(shown) for second in shown[:i])
    # What is left is the order of sums: other images share the teacher's batch.
    for step, (one, other) in enumerate(zip(online.losses, stored.losses, strict=True)):
        assert other == pytest.approx(one, rel=2e-5 if step == 0 else 5e-4, abs=2e-5)
    ours, theirs = (safetensors.torch.load_file(run.folder / "backbone.safetensors") for run in (stored, online))
    for key, value in theirs.items():
        torch.testing.assert_close(ours[key], value, rtol=1e-2, atol=1e-3, msg=lambda m, n=key: f"{n}: {m}")
    pd.testing.assert_frame_equal(*(pd.read_csv(run.folder / "log.csv") for run in (online, stored)), rtol=2e-3)


def inputs_of(run):
    return read_metadata(run.folder / "backbone.safetensors")["provenance"]["inputs"]


def test_a_student_names_the_inputs_it_was_trained_from(train, files_of, teacher, bags_of, demo):
    digests = []
    for path in files_of(settings_of("disco"), 1):
        with h5py.File(path) as file:
            digests.append(file.attrs["digest"])
    origin = {"dataset": demo.listing.digest, "teacher": load_teacher(teacher.path, CPU).digest}
    training = {**TRAINING, "epochs": 1}
    expected = {**origin, "targets-0": digests[0], "targets-1": digests[1]}
    assert inputs_of(train("disco", 1, training=training)) == expected
    bags = read_bags(bags_of(teacher)).attributes["digest"]
    assert inputs_of(train("bingo", folder="bingo", training=training)) == {**origin, "bags": bags}


@pytest.mark.parametrize("views", ["online", 1])
@pytest.mark.parametrize(
    ("term", "shown"), [("intra", {"anchor", "anchor_target"}), ("inter", {"positive", "anchor_target"})]
)
def test_one_term_of_the_paper_is_trained_from_the_views_it_needs(term, shown, views, train):
    run = train("bingo", views, terms=[term], training={**TRAINING, "epochs": 1})
    for batch in run.batches:
        assert set(batch.images) == (shown if views == "online" else shown - {"anchor_target"})
    assert all(set(losses) == {"loss", term} for losses in run.losses)
    assert ("bags" in inputs_of(run)) == (term == "inter")


@pytest.fixture
def require_refusal(demo, teacher, bags_of, targets_of, tmp_path):
    """Train a student that must be refused with a line that begins so; its other inputs fit."""

    def require_refusal(start, name="bingo", settings=None, **changes):
        inputs = {"listing": demo.path, "targets": [targets_of()], "bags": bags_of(teacher), **changes}
        settings = settings_of(name, **({"teacher_views": 2} if settings is None else settings))
        with pytest.raises(BingoError, match=f"^{start}"):
            train_student(settings, tmp_path / "student", **inputs)
        assert not list(tmp_path.rglob("*.safetensors"))

    return require_refusal


def test_targets_of_other_images_teachers_or_settings_are_refused(require_refusal, targets_of, list_demo, tmp_path):
    path, second = targets_of(), targets_of(number=1)
    require_refusal(f"{path}: .*dataset", listing=list_demo(COUNT - 2).path)
    require_refusal(f"{path}: .*projection", "compress 1q", bags=None)
    require_refusal(f"{second}: ", "seed", bags=None, targets=[second])
    require_refusal(f"{path}: ", preprocessing=INPUT.model_copy(update={"size": 20}))
    for training in ({"views": "paper"}, {"precision": "bfloat16"}):
        require_refusal(f"{path}: ", settings={"teacher_views": 2, "training": {**TRAINING, **training}})
    for views in (1, 3):
        require_refusal(f"{path}: ", settings={"teacher_views": views})
    require_refusal(f"{tmp_path / 'missing.h5'}: ", targets=[tmp_path / "missing.h5"])


def test_the_files_of_two_slots_are_of_one_teacher_and_in_order(require_refusal, targets_of, make_teacher):
    first, second, foreign = targets_of(), targets_of(number=1), targets_of(number=1, teacher=make_teacher(1))
    for start, targets in {
        f"{foreign}: .*teacher.*{first}": [first, foreign],
        f"{second}: ": [second, first],
        f"{first}: ": [first, first],
        "student s: .*--targets": [first],
        "student s: .*--targets ": [first, second, second],
    }.items():
        require_refusal(start, "disco", bags=None, targets=targets)


def test_bags_of_another_teacher_or_dataset_are_refused(
    require_refusal, bags_of, targets_of, make_teacher, teacher, list_demo
):
    other, ours = make_teacher(1), bags_of(teacher)
    require_refusal(f"{bags_of(other)}: .*teacher", bags=bags_of(other))
    require_refusal(f"{ours}: .*teacher.*{targets_of(teacher=other)}", targets=[targets_of(teacher=other)])
    online = {"settings": {}, "targets": []}
    require_refusal(f"{ours}: .*teacher", teacher=other.path, **online)
    require_refusal(f"{ours}: .*dataset", teacher=teacher.path, listing=list_demo(COUNT - 2).path, **online)


def test_a_missing_or_needless_input_is_named_by_its_flag(require_refusal, teacher):
    require_refusal("student s: .*--targets", targets=[])
    require_refusal("student s: .*--targets", targets=[], teacher=teacher.path)
    require_refusal("student s: .*--teacher", settings={}, targets=[])
    require_refusal("student s: .*--bags", bags=None)
    require_refusal("student s: .*--targets", settings={}, teacher=teacher.path)


def test_networks_that_cannot_take_images_of_the_size_are_refused(require_refusal, transformer):
    student = {"teacher_views": 2, "backbone": {"architecture": "timm/vit_tiny_patch16_224"}}
    require_refusal("backbone: .*16 px", "seed", bags=None, settings=student)
    require_refusal("backbone: .*16 px", "seed", bags=None, teacher=transformer, targets=[], settings={})


@pytest.mark.parametrize("views", ["online", 1])
def test_bags_without_a_teacher_go_with_any(views, demo, make_teacher, bags_of, targets_of, tmp_path):
    other = make_teacher(1)
    files = {"teacher": other.path} if views == "online" else {"targets": [targets_of(views=1, teacher=other)]}
    settings = settings_of("bingo", teacher_views=views, training={**TRAINING, "epochs": 1})
    train_student(settings, tmp_path, listing=demo.path, bags=bags_of(None), **files)
    assert (tmp_path / "backbone.safetensors").exists()


def test_an_interrupted_training_ends_with_the_bytes_of_an_uninterrupted_one(train, record, monkeypatch):
    whole = train("official", 2, folder="whole")
    after_step = TrainingModel.after_step

    def stop(model):
        after_step(model)
        if len(record.losses) == STEPS + 1:  # in the second epoch, which has another stored view
            raise KeyboardInterrupt

    monkeypatch.setattr(TrainingModel, "after_step", stop)
    with pytest.raises(KeyboardInterrupt):
        train("official", 2, folder="stopped")
    monkeypatch.setattr(TrainingModel, "after_step", after_step)
    resumed = train("official", 2, folder="stopped")
    assert resumed.losses == whole.losses[STEPS:]
    for file in ("backbone.safetensors", "head.safetensors", "log.csv"):
        assert (resumed.folder / file).read_bytes() == (whole.folder / file).read_bytes()
