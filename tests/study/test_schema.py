"""Faults in a study file: one line with the key, what was found, and what is allowed."""

import copy
import json
import re

import jsonschema
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from bingo.errors import BingoError
from bingo.study.schema import Study, parse_study, study_schema

STUDY = yaml.safe_load("""
study: s
data: {source: demo}
teachers: {big: {method: moco, backbone: {architecture: resnet50}}}
bags: {knn-5: {criterion: knn, teacher: big}}
students:
  bingo: {method: bingo, bags: knn-5, backbone: {architecture: resnet18}}
  alone: {method: moco, backbone: {architecture: resnet18}}
evaluations: [knn-10]
tables: {main: {title: T}}
""")
TRANSFER = yaml.safe_load("""
flowers: {source: folder, train: flowers/train, val: flowers/val}
grey: {source: demo, max_train: 100}
stl: {source: stl10, root: elsewhere}
coco: {source: coco, train: t, train_annotations: t.json, val: v, val_annotations: v.json}
coco-20: {source: demo}
""")
BACKBONE = {"architecture": "resnet18"}
SEED = {"method": "seed", "teacher": "big", "backbone": BACKBONE}
COMPRESS = {**SEED, "method": "compress"}
FOLDER = {"source": "folder", "train": "x"}


def changed(path, value, study=STUDY):
    study = copy.deepcopy(study)
    *folders, key = path.split(".")
    section = study
    for folder in folders:
        section = section[folder]
    section[key] = value
    return study


def bingo(**keys):
    return {**STUDY["students"]["bingo"], **keys}


def steps(*milestones, **keys):
    return {"schedule": {"milestones": list(milestones), "factor": 0.1}, **keys}


def refusal(study):
    with pytest.raises(BingoError) as caught:
        parse_study(study, "s.yaml")
    message = str(caught.value)
    assert message.startswith("s.yaml: ")
    assert "\n" not in message
    return message.removeprefix("s.yaml: ")


# Values that a key cannot have; the error names the key and what was found.
WRONG_VALUES = [
    ("seeds", []),
    ("students", None),
    ("bags.knn-5.size", 0),
    ("bags.knn-5.size", "five"),
    ("bags.knn-5.size", True),
    ("bags.knn-5.search", "fast"),
    ("bags.knn-5.criterion", "labels"),
    ("bags.other", {"criterion": "kmeans", "teacher": "big", "clusters": 0}, "clusters", 0),
    ("bags.other", {"criterion": "random", "size": 0}, "size", 0),
    ("data", {"source": "imagenet"}, "source", "imagenet"),
    ("data", TRANSFER["coco"], "source", "coco"),
    ("data", {**FOLDER, "held_out": 1.0}, "held_out", 1.0),
    ("data", {**FOLDER, "label_lists": {"semi-5": "x"}}, "label_lists.semi-5", "semi-5"),
    ("data", {**FOLDER, "label_lists": {"semi-1": 1}}, "label_lists.semi-1", 1),
    ("data.preprocessing", {"size": 4}, "size", 4),
    ("transfer", {"x": {"source": "demo", "max_train": 0}}, "x.max_train", 0),
    ("teachers.other", {"checkpoint": 1}, "checkpoint", 1),
    ("teachers.other", {"checkpoint": "x.pt", "format": "moko"}, "format", "moko"),
    ("teachers.other", {"checkpoint": "x.pt", "architecture": 18}, "architecture", 18),
    ("teachers.other", {"method": "bingo"}, "method", "bingo"),
    ("students.bingo.method", "bing"),
    ("students.bingo.teacher_views", 0),
    ("students.bingo.teacher_views", True),
    ("students.bingo.teacher_views", 2.5),
    ("students.bingo.teacher_views", "onlin"),
    ("students.bingo.teacher_batch_norm", "train"),
    ("students.bingo.terms", []),
    ("students.bingo.terms", ["intr"], "0", "intr"),
    ("students.bingo.objective", "papers"),
    ("students.bingo", bingo(objective="official", inter_free_epochs=-1), "inter_free_epochs", -1),
    ("students.alone", {**SEED, "teacher_temperature": 0.0}, "teacher_temperature", 0.0),
    ("students.alone", {**SEED, "method": "disco", "distance_weight": -1.0}, "distance_weight", -1.0),
    ("students.alone", {**COMPRESS, "variant": "3q"}, "variant", "3q"),
    ("students.alone.training", {"views": "probe"}, "views", "probe"),
    ("students.alone.training", {"lr": float("inf")}, "lr", float("inf")),
    ("students.alone.training", {"lr": "1e-2"}, "lr", "1e-2"),  # YAML reads it as text
    ("students.alone.training", steps(), "schedule.milestones", []),
    ("students.alone.training", steps(0), "schedule.milestones.0", 0),
    ("students.alone.training", {"schedule": {"milestones": [3], "factor": 1.0}}, "schedule.factor", 1.0),
    ("students.alone.training", {"schedule": "cosin"}, "schedule", "cosin"),
    ("tables.main.published", 3),
    ("tables.main.teachers", "no"),
]


@pytest.mark.parametrize("case", WRONG_VALUES, ids=lambda case: f"{case[0]} {case[-1]}")
def test_a_wrong_value_is_named_with_its_key(case):
    path, value, *inner = case
    key, found = inner or ("", value)
    message = refusal(changed(path, value))
    assert message.startswith(f"{path}.{key}".rstrip(".") + ": ")
    assert repr(found) in message


# Names of nothing: the error names the key and proposes the nearest name.
UNKNOWN = [
    ("student", {}, "", "students"),
    ("students.bingo.traning", {}, "students.bingo", "training"),
    ("students.alone.training", {"schedule": {"milestone": [3]}}, "students.alone.training.schedule", "milestones"),
    ("students.bingo.bags", "knn5", "students.bingo.bags", "knn-5"),
    ("students.bingo", bingo(teacher="bigg"), "students.bingo.teacher", "big"),
    ("students.alone.backbone.architecture", "resnet19", "students.alone.backbone.architecture", "resnet18"),
    ("teachers.other", {"checkpoint": "x", "architecture": "resnet19"}, "teachers.other.architecture", "resnet18"),
    ("teachers.other", {"checkpoint": "x", "formt": "moco"}, "teachers.other", "format"),
    ("bags.knn-5.teacher", "bigg", "bags.knn-5.teacher", "big"),
    ("bags.knn-5.search", {"ivff": {}}, "bags.knn-5.search", "ivf"),
    ("evaluations", ["knn10"], "evaluations", "knn-10"),
    ("data", {"source": "demo", "train": "x"}, "data", "max_train"),
    ("tables.main.students", ["bigno"], "tables.main.students", "bingo"),
    ("tables.main.publishd", "x.csv", "tables.main", "published"),
]


@pytest.mark.parametrize(("path", "value", "key", "nearest"), UNKNOWN, ids=lambda value: str(value)[:30])
def test_an_unknown_name_is_answered_with_the_nearest_one(path, value, key, nearest):
    message = refusal(changed(path, value))
    assert message.startswith(f"{key}: " if key else "unknown key 'student'")
    assert f"'{nearest}'?" in message


# Everything else that is refused: the section that the error begins with, and the key or value that it names.
FAULTS = [
    ("data", {}, "data", "source"),
    ("students.bingo.backbone", {}, "students.bingo.backbone.architecture", ""),
    ("teachers.other", {}, "teachers.other.method", ""),
    ("bags.other", {"criterion": "kmeans", "teacher": "big"}, "bags.other.clusters", ""),
    ("students.alone", {"method": "seed", "backbone": BACKBONE}, "students.alone.teacher", ""),
    ("students.alone.training", {"schedule": {"milestones": [3]}}, "students.alone.training.schedule.factor", ""),
    ("transfer", {"x": {"source": "coco", "train": "t"}}, "transfer.x.train_annotations", ""),
    ("transfer", {"x": {"source": "folder"}}, "transfer.x.train", ""),
    ("transfer", {"x": {"train": "x"}}, "transfer.x", "source"),
    # Keys that belong to another kind of entry.
    ("students.alone", {**SEED, "bags": "knn-5"}, "students.alone", "'bags'"),
    ("students.alone", {**COMPRESS, "head": {}}, "students.alone", "'head'"),
    ("students.alone.teacher", "big", "students.alone", "'teacher'"),
    ("teachers.other", {"checkpoint": "x.pt", "method": "moco"}, "teachers.other", "'method'"),
    ("bags.other", {"criterion": "label", "teacher": "big"}, "bags.other", "'teacher'"),
    ("data", {"source": "demo", "label_lists": {}}, "data", "'label_lists'"),
    ("transfer", {"x": {**TRANSFER["coco"], "labels": "none"}}, "transfer.x", "'labels'"),
    ("transfer", {"x": {"source": "demo", "workers": 1}}, "transfer.x", "'workers'"),
    ("transfer", {"x": {"source": "demo", "preprocessing": {}}}, "transfer.x", "'preprocessing'"),
    ("transfer", {"x": {**TRANSFER["flowers"], "label_lists": {}}}, "transfer.x", "'label_lists'"),
    ("transfer", {"X y": {"source": "demo"}}, "transfer.X y", ""),
    ("students.alone.backbone", {"architecture": "timm/"}, "students.alone.backbone.architecture", ""),
    ("students.alone.backbone", {"architecture": "efficientnet_b0", "width": 2.0}, "students.alone.backbone", "width"),
    ("students.alone.backbone", {"architecture": "timm/x", "stem": "small"}, "students.alone.backbone", "stem"),
    # Values that do not go together.
    ("seeds", [0, 0], "seeds", ""),
    ("tables.main.students", ["bingo", "bingo"], "tables.main.students", ""),
    ("tables.main.evaluations", ["knn-1", "knn-1"], "tables.main.evaluations", ""),
    ("teachers.bingo", STUDY["teachers"]["big"], "'bingo'", ""),
    ("teachers", {}, "bags.knn-5.teacher", "'big'"),
    ("bags.knn-5.search", {"ivf": {"lists": 8, "probes": 9}}, "bags.knn-5.search.ivf", "probes"),
    ("data.preprocessing", {"size": 64, "resize": 32}, "data.preprocessing", "resize"),
    ("data", {**FOLDER, "val": "y", "held_out": 0.2}, "data", "held_out"),
    ("data", {**FOLDER, "labels": "none", "held_out": 0.2}, "data", "held_out"),
    ("students.bingo", bingo(teacher_views=4, teacher_batch_norm="batch"), "students.bingo", "teacher_views"),
    ("students.bingo", bingo(terms=["intra", "intra"]), "students.bingo", "terms"),
    ("students.bingo", bingo(terms=["intra", "cutmix"]), "students.bingo", "cutmix"),
    ("students.bingo", bingo(inter_free_epochs=3), "students.bingo", "inter_free_epochs"),
    ("students.bingo", bingo(objective="official", terms=["inter"]), "students.bingo", "inter_free_epochs"),
    ("students.bingo", bingo(objective="official", training={"epochs": 11}), "students.bingo", "inter_free_epochs"),
    ("students.bingo", bingo(teacher_views=6, training={"epochs": 5}), "students.bingo", "teacher_views"),
    ("students.alone", {**COMPRESS, "teacher_views": 131}, "students.alone", "teacher_views"),
    ("students.alone.training", steps(4, 10, 12, epochs=10), "students.alone.training", "milestone 10"),
    ("teachers.big.training", steps(3, epochs=3), "teachers.big.training", "milestone 3"),
    ("students.alone", {**COMPRESS, "training": {"epochs": 15}}, "students.alone.training", "milestone 90"),
]  # fmt: skip


@pytest.mark.parametrize(("path", "value", "section", "named"), FAULTS, ids=lambda value: str(value)[:30])
def test_a_fault_names_its_section_and_key(path, value, section, named):
    message = refusal(changed(path, value, changed("transfer", {})))
    assert message.startswith(section)
    assert named in message


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("students.alone.training", steps(1, 2, epochs=3)),
        ("students.alone", {**COMPRESS, "training": {"epochs": 121}}),
        ("students.alone", {**COMPRESS, "training": {"epochs": 15, "schedule": "cosine"}}),
        ("students.bingo", bingo(objective="official", training={"epochs": 12})),
        ("students.bingo", bingo(objective="official", inter_free_epochs=0, training={"epochs": 1})),
        # Without inter pairs it does not matter when they would begin.
        ("students.bingo", bingo(objective="official", terms=["intra", "cutmix"], training={"epochs": 2})),
        ("students.bingo", bingo(teacher_views=5, training={"epochs": 5})),
        ("teachers.other", {"checkpoint": "x.pt", "architecture": "resnet18"}),
        ("teachers.other", {"checkpoint": "x.pt", "architecture": "timm/vit_tiny_patch16_224"}),
        ("teachers.other", {"checkpoint": "x.pt", "architecture": None}),
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_is_just_within_bounds_is_accepted(path, value):
    study = parse_study(changed(path, value), "s.yaml")
    assert parse_study(study.model_dump(mode="json"), "s.yaml") == study


def test_a_student_distils_the_teacher_of_its_bags_or_names_one_if_they_have_none():
    assert parse_study(STUDY, "s").teacher_of("bingo") == "big"
    two = changed("teachers.second", STUDY["teachers"]["big"])
    message = refusal(changed("students.bingo.teacher", "second", two))
    assert message.startswith("students.bingo.teacher: ")
    assert "'second'" in message
    assert parse_study(changed("students.bingo.teacher", "big", two), "s").teacher_of("bingo") == "big"
    labels = changed("students.bingo.bags", "classes", changed("bags.classes", {"criterion": "label"}))
    message = refusal(labels)
    assert message.startswith("students.bingo.teacher: ")
    assert "'classes'" in message
    assert parse_study(changed("students.bingo.teacher", "big", labels), "s").teacher_of("bingo") == "big"


def test_several_faults_are_counted():
    message = refusal(changed("students.bingo.training", {"lr": -1.0, "epochs": 0}))
    assert message.startswith("students.bingo.training.epochs: ")
    assert "1 more" in message


@pytest.mark.parametrize("raw", [["study"], {"study": "s", "data": {"source": "demo"}}])
def test_what_is_no_study_or_has_no_networks_is_refused(raw):
    refusal(raw)


@pytest.mark.parametrize("where", ["evaluations", "tables.main.evaluations"])
@pytest.mark.parametrize(
    ("name", "target", "protocol"),
    [
        ("knn-10", "", "knn-10"),
        ("flowers-linear", "flowers", "linear"),
        ("grey-linear-moco-small", "grey", "linear-moco-small"),
        ("stl-semi-10", "stl", "semi-10"),
        ("coco-mask-rcnn", "coco", "mask-rcnn"),
        ("coco-20-knn-10", "coco-20", "knn-10"),  # of two sets whose names begin alike, the longer one's
        ("cifar10-linear", "cifar10", "linear"),  # torchvision's need no entry
        ("cifar100-knn-dino-20", "cifar100", "knn-dino-20"),
        ("stl10-finetune", "stl10", "finetune"),
        ("fashion-mnist-linear", "fashion-mnist", "linear"),
    ],
)
def test_an_evaluation_is_a_protocol_or_a_set_and_a_protocol(where, name, target, protocol):
    study = parse_study(changed(where, [name], changed("transfer", TRANSFER)), "s.yaml")
    assert study.split_evaluation(name) == (target, protocol)
    if target in TRANSFER:
        assert study.target(target) == study.transfer[target]
    elif target:
        assert study.target(target).model_dump(exclude_defaults=True) == {"source": target}


@pytest.mark.parametrize("where", ["evaluations", "tables.main.evaluations"])
@pytest.mark.parametrize(
    ("name", "named"),
    [
        ("flowers-liner", "'linear'?"),
        ("cifar10-knn10", "'knn-10'?"),
        ("coco-mask-rcn", "'mask-rcnn'?"),
        ("flower-linear", "'flowers-linear'?"),
        ("cifar-10-linear", "'cifar10-linear'?"),
        ("coco-", "coco"),
        # Detectors need boxes, which no other set has; images with boxes have no classes.
        ("coco-linear", "faster-rcnn"),
        ("cifar10-mask-rcnn", "finetune"),
        ("mask-rcnn", "'mask-rcnn'"),
        # Only other sets are evaluated by these, and a set alone is no evaluation.
        ("linear", "'linear'"),
        ("finetune", "'finetune'"),
        ("cifar10", "'cifar10'"),
    ],
)
def test_an_evaluation_of_no_set_or_protocol_is_refused_with_the_nearest_name(where, name, named):
    message = refusal(changed(where, ["knn-10", name], changed("transfer", TRANSFER)))
    assert message.startswith(f"{where}: ")
    assert named in message


def test_an_entry_of_transfer_replaces_the_set_of_its_name():
    study = {**STUDY, "transfer": {"cifar10": {**TRANSFER["flowers"], "train": "my-cifar/train"}}}
    assert parse_study({**study, "evaluations": ["cifar10-linear"]}, "s").target("cifar10").train == "my-cifar/train"
    assert "cifar10" in refusal({**study, "evaluations": ["cifar10-mask-rcnn"]})
    coco = parse_study({**STUDY, "transfer": {"cifar10": TRANSFER["coco"]}, "evaluations": ["cifar10-mask-rcnn"]}, "s")
    assert coco.target("cifar10").val_annotations == "v.json"


# A student of every kind, in what a study may say of it; `big` teaches them all.
EVERY_STUDENT = yaml.safe_load("""
alone: {method: moco}
paper: {method: bingo, bags: knn-5}
intra: {method: bingo, bags: knn-5, terms: [intra]}
official: {method: bingo, bags: knn-5, objective: official}
inter: {method: bingo, bags: knn-5, objective: official, terms: [inter], inter_free_epochs: 0}
stored: {method: bingo, bags: knn-5, teacher_views: 3}
batch: {method: bingo, bags: knn-5, teacher_batch_norm: batch}
seed: {method: seed, teacher: big}
disco: {method: disco, teacher: big, teacher_views: 5}
compress: {method: compress, teacher: big}
compress-1q: {method: compress, teacher: big, variant: 1q, teacher_views: 4}
steps: {method: moco, training: {schedule: {milestones: [2, 4], factor: 0.5}}}
timm: {method: moco, backbone: {architecture: timm/resnet18}}
""")


def every_entry():
    """Return a study with every kind of student, set and table."""
    study = changed("transfer", TRANSFER)
    study["students"] |= {name: {"backbone": BACKBONE, **entry} for name, entry in EVERY_STUDENT.items()}
    study["data"] = {**FOLDER, "label_lists": {"semi-1": "1.txt", "semi-10": "10.txt"}}
    table = {"title": "T", "students": ["bingo"], "teachers": False, "evaluations": ["semi-1"], "published": "p.csv"}
    study["tables"]["more"] = table
    return study


def test_a_study_written_out_in_full_is_the_same_study_and_fits_the_schema():
    raw = every_entry()
    study = parse_study(raw, "s")
    whole = json.loads(study.model_dump_json())
    for written in (raw, whole):
        jsonschema.validate(written, study_schema())
    assert parse_study(whole, "s") == study
    assert study.evaluations == ["knn-10"]
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(changed("students.bingo.traning", {}), study_schema())


def test_students_know_which_teacher_and_bags_they_need():
    study = parse_study(every_entry(), "s")
    assert {name for name in study.students if study.teacher_of(name) is None} == {"alone", "steps", "timm"}
    with_bags = {"bingo", "paper", "official", "inter", "stored", "batch"}
    assert {name for name in study.students if study.bags_of(name) == "knn-5"} == with_bags
    # The bags of `intra` name its teacher, though it draws nothing from them.
    assert (study.bags_of("intra"), study.teacher_of("intra")) == (None, "big")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
PATHS = re.findall(
    r"\S+",
    """study seeds data data.source data.preprocessing teachers teachers.big teachers.big.backbone
    teachers.big.training teachers.other bags.knn-5 bags.knn-5.size bags.other students.bingo students.bingo.method
    students.bingo.teacher students.bingo.teacher_views students.bingo.terms students.bingo.training students.other
    transfer transfer.other transfer.other.source evaluations tables tables.main.evaluations tables.main.published
    tables.main.teachers""",
)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.sampled_from(PATHS), JSON)
def test_whatever_a_key_holds_the_answer_is_a_study_or_one_line(path, value):
    raw = {**changed("transfer", {"other": {"source": "demo"}}), "evaluations": ["other-linear"]}
    try:
        answer = parse_study(changed(path, value, raw), "s.yaml")
    except BingoError as error:
        answer = str(error)
    assert isinstance(answer, Study) or (answer.startswith("s.yaml: ") and "\n" not in answer)
