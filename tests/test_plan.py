import os

import pytest

from bingo.config import parse_study
from bingo.errors import BingoError
from bingo.jobs import student_settings
from bingo.plan import Plan

STUDY = {
    "study": "s",
    "data": {"source": "demo", "max_train": 100},
    "teachers": {"big": {"method": "moco", "backbone": {"architecture": "resnet18"}, "training": {"batch_size": 100}}},
    "bags": {"knn": {"criterion": "knn", "teacher": "big", "size": 99}},
    "students": {
        "small": {
            "method": "bingo",
            "bags": "knn",
            "backbone": {"architecture": "resnet10"},
            "training": {"batch_size": 100},
        }
    },
}


def plan(images):
    return Plan(parse_study({**STUDY, "data": {"source": "demo", "max_train": images}}, "s.yaml"))


@pytest.mark.parametrize("section", ["bags.knn", "teachers.big", "students.small"])
def test_more_images_than_there_are_is_refused_before_anything_runs(section):
    assert plan(100).facts.most_images == 100
    keys = ["bags.knn.size", "teachers.big.training.batch_size", "students.small.training.batch_size"]
    raw = {**STUDY, "data": {"source": "demo", "max_train": 60}}
    for key in keys:
        if not key.startswith(section):
            name, entry = key.split(".")[:2]
            change = {"size": 5} if name == "bags" else {"training": {"batch_size": 60}}
            raw = {**raw, name: {entry: {**raw[name][entry], **change}}}
    with pytest.raises(BingoError, match=rf"{section}[a-z._]*size: \d+ needs 100 training images, but there are 60"):
        Plan(parse_study(raw, "s.yaml"))


BACKBONE = {"architecture": "resnet10"}
TRAINING = {"batch_size": 50}


def rich(**changes):
    """A plan with a student for each way to learn from a teacher."""
    views = {"training": {**TRAINING, "views": "small", "precision": "float32"}, "backbone": BACKBONE}
    study = {
        **STUDY,
        "teachers": {**STUDY["teachers"], "given": {"checkpoint": "results/s/students/alone/seed-0/x.safetensors"}},
        "bags": {
            "knn": {"criterion": "knn", "teacher": "big"},
            "kmeans": {"criterion": "kmeans", "teacher": "big", "clusters": 100},
            "label": {"criterion": "label"},
            "random": {"criterion": "random"},
        },
        "students": {
            "alone": {"method": "moco", "backbone": BACKBONE, "training": TRAINING},
            "online": {"method": "bingo", "bags": "knn", **views},
            "stored": {"method": "bingo", "bags": "kmeans", "teacher_views": 2, **views},
            "auto": {"method": "seed", "teacher": "given", "teacher_views": 2, "backbone": BACKBONE},
            "label": {"method": "bingo", "bags": "label", "teacher": "given", **views},
            "random": {"method": "bingo", "bags": "random", "teacher": "big", "teacher_views": 1, **views},
        },
        **changes,
    }
    if "auto" in study["students"]:
        study["students"]["auto"]["training"] = TRAINING
    return Plan(parse_study(study, "s.yaml"))


def test_a_student_waits_for_its_teacher_or_for_the_outputs_in_its_place_and_for_bags():
    targets = "results/s/targets"
    assert {name: rich().student_inputs(name) for name in rich().study.students} == {
        "alone": {},
        "online": {"teacher": "results/s/teachers/big.safetensors", "bags": "results/s/bags/knn.h5"},
        "stored": {"targets": [f"{targets}/big/small-float32-projection-0-2.h5"], "bags": "results/s/bags/kmeans.h5"},
        "auto": {"targets": [f"{targets}/given/paper-auto-projection-0-2.h5"]},
        "label": {"teacher": "results/s/teachers/given.safetensors", "bags": "results/s/bags/label.h5"},
        "random": {"targets": [f"{targets}/big/small-float32-projection-0-1.h5"], "bags": "results/s/bags/random.h5"},
    }


STORED = {"teacher_views": 2, "backbone": BACKBONE}
MORE = {
    "disco": {"method": "disco", "teacher": "big", **STORED},
    "compress": {"method": "compress", "teacher": "big", **STORED},
    "intra": {"method": "bingo", "bags": "knn", "terms": ["intra"], **STORED},
    "inter": {"method": "bingo", "bags": "knn", "terms": ["inter"], **STORED},
    "cutmix": {"method": "bingo", "bags": "knn", "objective": "official", "terms": ["cutmix"], **STORED},
    "alone": {"method": "moco", "backbone": BACKBONE},
}


def more(*names):
    students = {name: {**MORE[name], "training": TRAINING} for name in names}
    return rich(students=students)


def test_each_number_and_layer_of_stored_outputs_has_a_file():
    plan = more(*MORE)
    folder, bags = "results/s/targets/big", "results/s/bags/knn.h5"
    assert {name: plan.student_inputs(name) for name in MORE} == {
        "disco": {"targets": [f"{folder}/paper-auto-projection-{number}-2.h5" for number in (0, 1)]},
        "compress": {"targets": [f"{folder}/crop-flip-auto-features-0-2.h5"]},
        # Who draws no positives waits for no bags, though these name its teacher.
        "intra": {"targets": [f"{folder}/paper-auto-projection-0-2.h5"]},
        "inter": {"targets": [f"{folder}/paper-auto-projection-0-2.h5"], "bags": bags},
        "cutmix": {"targets": [f"{folder}/paper-auto-projection-0-2.h5"], "bags": bags},
        "alone": {},
    }


def test_another_stored_student_changes_neither_inputs_nor_settings_of_this_one():
    whole = more(*MORE)
    for name in MORE:
        alone = more(name)
        assert alone.student_inputs(name) == whole.student_inputs(name)
        assert student_settings(alone.study, name, 0) == student_settings(whole.study, name, 0)


def test_bags_wait_for_a_teacher_and_its_embeddings_where_they_are_made_from_any():
    inputs = {"teacher": "results/s/teachers/big.safetensors", "embeddings": "results/s/embeddings/big.h5"}
    found = {name: rich().bags_inputs(name) for name in rich().study.bags}
    assert found == {"knn": inputs, "kmeans": inputs, "label": {}, "random": {}}


def test_imported_teachers_are_not_trained_and_have_no_log():
    plan = rich()
    assert plan.trained_teachers() == ["big"]
    assert plan.checkpoints() == {"given": "results/s/students/alone/seed-0/x.safetensors"}
    logs = plan.training_logs()
    assert "given" not in logs
    assert logs["big"] == "results/s/teachers/big.csv"
    assert len(logs) == 1 + len(plan.study.students)
    assert "results/s/teachers/given.safetensors" in plan.all_weights()


def test_a_study_of_imported_teachers_has_no_training_log():
    study = {**STUDY, "teachers": {"given": {"checkpoint": "results/s/x.pt"}}, "bags": {}, "students": {}}
    assert Plan(parse_study(study, "s.yaml")).training_logs() == {}


@pytest.mark.parametrize("name", ["{epoch}.pt", "a{b.pt", "a}.pt", "{x}/weights.pt"])
@pytest.mark.parametrize("where", ["", "results/s/"])
def test_a_checkpoint_with_braces_is_refused_before_snakemake_reads_them(name, where, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = where + name
    (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / path).touch()
    study = {"study": "s", "data": {"source": "demo"}, "teachers": {"given": {"checkpoint": path}}}
    with pytest.raises(BingoError) as caught:
        Plan(parse_study(study, "s.yaml"))
    message = f"teachers.given.checkpoint: {path} has braces, which Snakemake cannot take; rename it"
    assert str(caught.value) == message


def test_a_checkpoint_that_is_not_there_is_refused_unless_the_study_makes_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def given(path):
        study = {"study": "s", "data": {"source": "demo"}, "teachers": {"given": {"checkpoint": str(path)}}}
        return Plan(parse_study(study, "s.yaml"))

    for path in ("nowhere.pt", tmp_path, "results/other/teachers/x.safetensors"):
        with pytest.raises(BingoError) as caught:
            given(path)
        assert str(caught.value) == f"teachers.given.checkpoint: there is no file {path}; correct the path"
    (tmp_path / "weights.pt").write_text("")
    assert given("weights.pt").checkpoints() == {"given": "weights.pt"}
    assert given("results/s/students/small/seed-0/backbone.safetensors").trained_teachers() == []


def test_label_bags_of_data_without_labels_are_refused(tmp_path):
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "a.png").write_text("")
    study = {
        "study": "s",
        "data": {"source": "folder", "train": str(tmp_path / "train")},
        "teachers": {"big": STUDY["teachers"]["big"]},
        "bags": {"classes": {"criterion": "label"}},
    }
    with pytest.raises(BingoError) as caught:
        Plan(parse_study(study, "s.yaml"))
    assert str(caught.value) == "bags.classes: criterion label needs labels, which the data have not; take another"
    (tmp_path / "train" / "class").mkdir()
    assert Plan(parse_study(study, "s.yaml")).facts.labels
    study["data"]["labels"] = "none"
    with pytest.raises(BingoError, match="criterion label needs labels"):
        Plan(parse_study(study, "s.yaml"))


@pytest.mark.parametrize(
    ("bag", "fits", "too_many", "key"),
    [
        ({"criterion": "kmeans", "teacher": "big"}, {"clusters": 100}, {"clusters": 101}, "clusters: 101 needs 101"),
        ({"criterion": "random"}, {"size": 99}, {"size": 100}, "size: 100 needs 101"),
        ({"criterion": "knn", "teacher": "big"}, {"size": 99}, {"size": 100}, "size: 100 needs 101"),
    ],
)
def test_bags_of_more_than_there_is_are_refused(bag, fits, too_many, key):
    study = {**STUDY, "students": {}}
    Plan(parse_study({**study, "bags": {"b": {**bag, **fits}}}, "s.yaml"))
    with pytest.raises(BingoError) as caught:
        Plan(parse_study({**study, "bags": {"b": {**bag, **too_many}}}, "s.yaml"))
    assert str(caught.value) == f"bags.b.{key} training images, but there are 100; lower it"


def test_errors_are_read_from_the_logs_of_this_run_alone(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    lines = {
        "old": "1999-12-31 23:59:59 error: long ago",
        "new": "2026-01-01 00:00:00 error: x.h5: damaged",
        "ok": "fine",
    }
    for age, (name, line) in enumerate(lines.items()):
        path = tmp_path / "logs" / "s" / "bags" / f"{name}.log"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"2026-01-01 00:00:00 knn: 7 of 9 images\n{line}\n")
        if age == 0:
            os.utime(path, (1000, 1000))
    assert plan(100).faults(since=2000) == ["logs/s/bags/new.log: x.h5: damaged"]
    assert len(plan(100).faults(since=0)) == 2
