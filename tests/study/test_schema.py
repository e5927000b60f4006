"""Faults in a study file: one line with the key, what was found, and what is allowed."""

import copy
import json
import re
from pathlib import Path
from typing import get_args

import jsonschema
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from bingo.errors import BingoError
from bingo.study.schema import Student, Study, parse_study, study_schema

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


METHODS = ", ".join(
    repr(get_args(kind.model_fields["method"].annotation)[0]) for kind in get_args(get_args(Student)[0])
)
BACKBONE = {"architecture": "resnet18"}
SEED = {"method": "seed", "teacher": "big", "backbone": BACKBONE}


def changed(path, value, study=STUDY):
    study = copy.deepcopy(study)
    *folders, key = path.split(".")
    section = study
    for folder in folders:
        section = section[folder]
    section[key] = value
    return study


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("student", {}, "s.yaml: unknown key 'student'; did you mean 'students'?"),
        (
            "students.bingo.traning",
            {},
            "s.yaml: students.bingo: unknown key 'traning'; did you mean 'training'?",
        ),
        (
            "students.bingo.bags",
            "knn5",
            "s.yaml: students.bingo.bags: there is no 'knn5' among the bags; did you mean 'knn-5'?",
        ),
        (
            "bags.knn-5.teacher",
            "bigg",
            "s.yaml: bags.knn-5.teacher: there is no 'bigg' among the teachers; did you mean 'big'?",
        ),
        (
            "evaluations",
            ["knn10"],
            "s.yaml: evaluations: there is no 'knn10' among the protocols; did you mean 'knn-10'?",
        ),
        (
            "tables.main.students",
            ["bigno"],
            "s.yaml: tables.main.students: there is no 'bigno' among the students; did you mean 'bingo'?",
        ),
        ("bags.knn-5.size", 0, "s.yaml: bags.knn-5.size: input should be greater than or equal to 1, found 0"),
        ("bags.knn-5.size", "five", "s.yaml: bags.knn-5.size: input should be a valid integer, found 'five'"),
        (
            "bags.knn-5.search",
            "fast",
            "s.yaml: bags.knn-5.search: must be exact, or a section with ivf, found 'fast'",
        ),
        ("bags.knn-5.search", {"ivff": {}}, "s.yaml: bags.knn-5.search: unknown key 'ivff'; did you mean 'ivf'?"),
        (
            "bags.knn-5.search",
            {"ivf": {"lists": 8, "probes": 9}},
            "s.yaml: bags.knn-5.search.ivf: probes must be at most lists",
        ),
        ("bags.knn-5.size", True, "s.yaml: bags.knn-5.size: input should be a valid integer, found True"),
        (
            "students.bingo.training",
            {"lr": "1e-2"},
            "s.yaml: students.bingo.training.lr: input should be a valid number, found '1e-2' "
            "(YAML reads 1e-4 as text: write 1.0e-4)",
        ),
        (
            "students.bingo.method",
            "bing",
            f"s.yaml: students.bingo.method: found 'bing', allowed: {METHODS}",
        ),
        ("students.bingo.backbone", {}, "s.yaml: students.bingo.backbone.architecture: this key is required"),
        ("data", {}, "s.yaml: data: the key 'source' is required"),
        ("teachers", {}, "s.yaml: bags.knn-5.teacher: there is no 'big' among the teachers; none is defined"),
        ("data", {"source": "demo", "train": "x"}, "s.yaml: data: unknown key 'train'; did you mean 'max_train'?"),
        ("seeds", [0, 0], "s.yaml: seeds: a value is repeated"),
        ("tables.main.students", ["bingo", "bingo"], "s.yaml: tables.main.students: a value is repeated"),
        (
            "students.bingo.training",
            {"lr": float("inf")},
            "s.yaml: students.bingo.training.lr: input should be a finite number, found inf",
        ),
        ("seeds", [], "s.yaml: seeds: list should have at least 1 item after validation, not 0, found []"),
        ("teachers.bingo", STUDY["teachers"]["big"], "s.yaml: 'bingo' names both a teacher and a student; rename one"),
        (
            "data.preprocessing",
            {"size": 64, "resize": 32},
            "s.yaml: data.preprocessing: resize must be at least size",
        ),
        (
            "data.preprocessing",
            {"size": 4},
            "s.yaml: data.preprocessing.size: input should be greater than or equal to 8, found 4",
        ),
        (
            "data",
            {"source": "folder", "train": "x", "val": "y", "held_out": 0.2},
            "s.yaml: data: held_out and val both name validation images; leave one out",
        ),
        (
            "data",
            {"source": "folder", "train": "x", "labels": "none", "held_out": 0.2},
            "s.yaml: data: held_out needs class folders, but labels is none; leave one out",
        ),
        (
            "data",
            {"source": "folder", "train": "x", "held_out": 1.0},
            "s.yaml: data.held_out: input should be less than 1, found 1.0",
        ),
        ("students", None, "s.yaml: students: input should be a valid dictionary, found None"),
    ],
    ids=lambda value: value if isinstance(value, str) and " " not in value else "",
)
def test_a_fault_is_one_line_that_names_the_key_and_what_is_allowed(path, value, message):
    with pytest.raises(BingoError) as caught:
        parse_study(changed(path, value), "s.yaml")
    assert str(caught.value) == message


def bingo(**keys):
    return {**STUDY["students"]["bingo"], **keys}


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (
            "students.bingo",
            bingo(teacher="bigg"),
            "students.bingo.teacher: there is no 'bigg' among the teachers; did you mean 'big'?",
        ),
        (
            "students.bingo",
            bingo(teacher_views=0),
            "students.bingo.teacher_views: must be online or a whole number from 1, found 0",
        ),
        (
            "students.bingo",
            bingo(teacher_views=4, teacher_batch_norm="batch"),
            "students.bingo: teacher_views: outputs that depend on the batch cannot be stored; set online, or "
            "teacher_batch_norm: eval",
        ),
        (
            "students.bingo",
            bingo(teacher_batch_norm="train"),
            "students.bingo.teacher_batch_norm: input should be 'eval' or 'batch', found 'train'",
        ),
        (
            "students.bingo",
            bingo(terms=[]),
            "students.bingo.terms: list should have at least 1 item after validation, not 0, found []",
        ),
        (
            "students.bingo",
            bingo(terms=["intr"]),
            "students.bingo.terms.0: input should be 'intra', 'inter' or 'cutmix', found 'intr'",
        ),
        ("students.bingo", bingo(terms=["intra", "intra"]), "students.bingo: terms: a term is repeated"),
        (
            "students.bingo",
            bingo(terms=["intra", "cutmix"]),
            "students.bingo: terms: cutmix belongs to the objective official",
        ),
        (
            "students.bingo",
            bingo(inter_free_epochs=3),
            "students.bingo: inter_free_epochs: belongs to the objective official",
        ),
        (
            "students.bingo",
            bingo(objective="official", terms=["inter"]),
            "students.bingo: terms: with inter alone, inter_free_epochs must be 0, else there is no loss at the start",
        ),
        (
            "students.bingo",
            bingo(objective="official", inter_free_epochs=-1),
            "students.bingo.inter_free_epochs: input should be greater than or equal to 0, found -1",
        ),
        (
            "students.bingo",
            bingo(objective="papers"),
            "students.bingo.objective: input should be 'paper' or 'official', found 'papers'",
        ),
        (
            "students.alone",
            {"method": "seed", "backbone": BACKBONE},
            "students.alone.teacher: name the teacher to distil",
        ),
        (
            "students.alone",
            {**SEED, "teacher_temperature": 0.0},
            "students.alone.teacher_temperature: input should be greater than 0, found 0.0",
        ),
        (
            "students.alone",
            {**SEED, "method": "disco", "distance_weight": -1.0},
            "students.alone.distance_weight: input should be greater than or equal to 0, found -1.0",
        ),
        (
            "students.alone",
            {**SEED, "method": "compress", "variant": "3q"},
            "students.alone.variant: input should be '2q' or '1q', found '3q'",
        ),
        (
            "students.alone.backbone",
            {"architecture": "resnet19"},
            "students.alone.backbone.architecture: there is no architecture 'resnet19'; did you mean 'resnet18'?; "
            "timm's are timm/<name>",
        ),
        (
            "students.alone.backbone",
            {"architecture": "efficientnet_b0", "width": 2.0},
            "students.alone.backbone: stem and width belong to ResNets, efficientnet_b0 has neither",
        ),
        (
            "students.alone.backbone",
            {"architecture": "mobilenet_v3_large", "stem": "small"},
            "students.alone.backbone: stem and width belong to ResNets, mobilenet_v3_large has neither",
        ),
        (
            "students.alone.backbone",
            {"architecture": "timm/resnet18", "stem": "small"},
            "students.alone.backbone: stem and width belong to ResNets, timm/resnet18 has neither",
        ),
        (
            "students.alone.training",
            {"schedule": {"milestones": [], "factor": 0.1}},
            "students.alone.training.schedule.milestones: list should have at least 1 item after validation, not 0, "
            "found []",
        ),
        (
            "students.alone.training",
            {"schedule": {"milestones": [0], "factor": 0.1}},
            "students.alone.training.schedule.milestones.0: input should be greater than or equal to 1, found 0",
        ),
        (
            "students.alone.training",
            {"schedule": {"milestones": [3]}},
            "students.alone.training.schedule.factor: this key is required",
        ),
        (
            "students.alone.training",
            {"schedule": {"milestones": [3], "factor": 1.0}},
            "students.alone.training.schedule.factor: input should be less than 1, found 1.0",
        ),
        (
            "students.alone.training",
            {"schedule": {"milestone": [3], "factor": 0.1}},
            "students.alone.training.schedule: unknown key 'milestone'; did you mean 'milestones'?",
        ),
        (
            "students.alone.training",
            {"schedule": "cosin"},
            "students.alone.training.schedule: must be cosine, or a section with milestones and factor, found 'cosin'",
        ),
        (
            "students.bingo.teacher_views",
            "onlin",
            "students.bingo.teacher_views: must be online or a whole number from 1, found 'onlin'",
        ),
        (
            "students.alone.training",
            {"epochs": 10, "schedule": {"milestones": [4, 10, 12], "factor": 0.1}},
            "students.alone.training: schedule: milestone 10 is never reached in 10 epochs; set cosine, or "
            "milestones below 10",
        ),
        (
            "teachers.big.training",
            {"epochs": 3, "schedule": {"milestones": [3], "factor": 0.1}},
            "teachers.big.training: schedule: milestone 3 is never reached in 3 epochs; set cosine, or "
            "milestones below 3",
        ),
        (
            "students.alone",
            {**SEED, "method": "compress", "training": {"epochs": 15}},
            "students.alone.training: schedule: milestone 90 is never reached in 15 epochs; set cosine, or "
            "milestones below 15",
        ),
        (
            "students.bingo",
            bingo(objective="official", training={"epochs": 11}),
            "students.bingo: inter_free_epochs: 11 leave no inter pairs in 11 epochs; set it below 11, or set terms",
        ),
        (
            "students.bingo",
            bingo(objective="official", terms=["intra", "inter"], inter_free_epochs=9, training={"epochs": 5}),
            "students.bingo: inter_free_epochs: 9 leave no inter pairs in 5 epochs; set it below 5, or set terms",
        ),
        (
            "students.bingo",
            bingo(teacher_views=6, training={"epochs": 5}),
            "students.bingo: teacher_views: 6 are more than the 5 epochs, which use one each; lower it",
        ),
        (
            "students.alone",
            {**SEED, "method": "compress", "teacher_views": 131},
            "students.alone: teacher_views: 131 are more than the 130 epochs, which use one each; lower it",
        ),
        (
            "teachers.other",
            {"checkpoint": "x.pt", "architecture": "resnet19"},
            "teachers.other.architecture: there is no architecture 'resnet19'; did you mean 'resnet18'?; timm's are "
            "timm/<name>",
        ),
        ("teachers.other", {"checkpoint": 1}, "teachers.other.checkpoint: input should be a valid string, found 1"),
        (
            "teachers.other",
            {"checkpoint": "x.pt", "formt": "moco"},
            "teachers.other: unknown key 'formt'; did you mean 'format'?",
        ),
        ("bags.other", {"criterion": "kmeans", "teacher": "big"}, "bags.other.clusters: this key is required"),
        (
            "bags.other",
            {"criterion": "kmeans", "teacher": "bigg", "clusters": 3},
            "bags.other.teacher: there is no 'bigg' among the teachers; did you mean 'big'?",
        ),
        (
            "bags.other",
            {"criterion": "kmeans", "teacher": "big", "clusters": 0},
            "bags.other.clusters: input should be greater than or equal to 1, found 0",
        ),
        (
            "bags.other",
            {"criterion": "random", "size": 0},
            "bags.other.size: input should be greater than or equal to 1, found 0",
        ),
        (
            "bags.other",
            {"criterion": "labels"},
            "bags.other.criterion: found 'labels', allowed: 'knn', 'kmeans', 'label', 'random'",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) and " " not in value else "",
)
def test_a_fault_in_a_key_of_a_method_is_such_a_line_too(path, value, message):
    with pytest.raises(BingoError) as caught:
        parse_study(changed(path, value), "s.yaml")
    assert str(caught.value) == f"s.yaml: {message}"


@pytest.mark.parametrize(
    ("path", "value", "key"),
    [
        ("students.bingo.teacher_views", True, "students.bingo.teacher_views: "),
        ("students.bingo.teacher_views", 2.5, "students.bingo.teacher_views: "),
        ("students.alone.training", {"views": "probe"}, "students.alone.training.views: "),
        ("students.alone.backbone", {"architecture": "timm/"}, "students.alone.backbone.architecture: "),
        ("students.alone", {**SEED, "bags": "knn-5"}, "students.alone: unknown key 'bags'; "),
        ("students.alone", {**SEED, "method": "compress", "head": {}}, "students.alone: unknown key 'head'; "),
        ("students.alone.teacher", "big", "students.alone: unknown key 'teacher'; "),
        ("teachers.other", {"checkpoint": "x.pt", "format": "moko"}, "teachers.other.format: "),
        ("teachers.other", {"checkpoint": "x.pt", "architecture": "timm/"}, "teachers.other.architecture: "),
        ("teachers.other", {"checkpoint": "x.pt", "architecture": 18}, "teachers.other.architecture: "),
        ("teachers.other", {"checkpoint": "x.pt", "method": "moco"}, "teachers.other: unknown key 'method'; "),
        ("teachers.other", {}, "teachers.other.method: "),
        ("teachers.other", {"method": "bingo"}, "teachers.other.method: "),
        ("bags.other", {"criterion": "label", "teacher": "big"}, "bags.other: unknown key 'teacher'; "),
    ],
)
def test_whatever_else_is_said_the_key_is_named(path, value, key):
    with pytest.raises(BingoError) as caught:
        parse_study(changed(path, value), "s.yaml")
    assert str(caught.value).startswith(f"s.yaml: {key}")
    assert "\n" not in str(caught.value)


def test_bags_that_no_teacher_made_leave_it_to_the_student_to_name_one():
    study = changed("bags.classes", {"criterion": "label"})
    study["students"]["bingo"]["bags"] = "classes"
    with pytest.raises(BingoError) as caught:
        parse_study(study, "s.yaml")
    assert str(caught.value) == (
        "s.yaml: students.bingo.teacher: name the teacher to distil, because bags 'classes' have none"
    )
    study["students"]["bingo"]["teacher"] = "big"
    assert parse_study(study, "s.yaml").teacher_of("bingo") == "big"


def test_a_student_may_not_distil_another_teacher_than_that_of_its_bags():
    study = changed("teachers.second", STUDY["teachers"]["big"])
    study["students"]["bingo"]["teacher"] = "second"
    with pytest.raises(BingoError) as caught:
        parse_study(study, "s.yaml")
    assert str(caught.value) == "s.yaml: students.bingo.teacher: 'second' is not the teacher of its bags 'knn-5'"
    study["students"]["bingo"]["teacher"] = "big"  # it may be named all the same
    assert parse_study(study, "s.yaml").teacher_of("bingo") == "big"


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("students.alone.training", {"epochs": 3, "schedule": {"milestones": [1, 2], "factor": 0.1}}),
        ("students.alone", {**SEED, "method": "compress", "training": {"epochs": 121}}),
        ("students.alone", {**SEED, "method": "compress", "training": {"epochs": 15, "schedule": "cosine"}}),
        ("students.bingo", bingo(objective="official", training={"epochs": 12})),
        ("students.bingo", bingo(objective="official", inter_free_epochs=0, training={"epochs": 1})),
        # Without inter pairs it does not matter when they would begin.
        ("students.bingo", bingo(objective="official", terms=["intra", "cutmix"], training={"epochs": 2})),
        ("students.bingo", bingo(teacher_views=5, training={"epochs": 5})),
        ("teachers.other", {"checkpoint": "x.pt", "architecture": "resnet18"}),
        ("teachers.other", {"checkpoint": "x.pt", "architecture": "timm/vit_tiny_patch16_224"}),
        ("teachers.other", {"checkpoint": "x.pt", "architecture": None}),
    ],
)
def test_what_is_just_within_bounds_is_accepted(path, value):
    study = parse_study(changed(path, value), "s.yaml")
    assert parse_study(study.model_dump(mode="json"), "s.yaml") == study


def test_every_fault_that_the_project_finds_is_made_in_one_place():
    # Of another type than `said` it would end in what was found: a whole section, say.
    sources = {path: path.read_text() for path in (Path(__file__).parents[2] / "bingo").rglob("*.py")}
    calls = [call for text in sources.values() for call in re.findall(r"PydanticCustomError\(\s*([^,]+),", text)]
    assert calls == ['"said"']


def test_several_faults_are_counted():
    study = changed("students.bingo.training", {"lr": -1.0, "epochs": 0})
    with pytest.raises(BingoError, match=r"training\.epochs: .* \(and 1 more\)$"):
        parse_study(study, "s.yaml")


def test_a_study_that_is_no_mapping_is_refused():
    with pytest.raises(BingoError, match="valid dictionary"):
        parse_study(["study"], "s.yaml")


def test_the_schema_accepts_what_the_model_accepts_and_refuses_a_typo():
    schema = study_schema()
    jsonschema.validate(STUDY, schema)
    jsonschema.validate(json.loads(parse_study(STUDY, "s").model_dump_json()), schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(changed("students.bingo.traning", {}), schema)


TRANSFER = {
    "flowers": {"source": "folder", "train": "flowers/train", "val": "flowers/val"},
    "grey": {"source": "demo", "max_train": 100},
    "stl": {"source": "stl10", "root": "elsewhere"},
    "coco": {"source": "coco", "train": "t", "train_annotations": "t.json", "val": "v", "val_annotations": "v.json"},
    "coco-20": {"source": "demo"},
}


@pytest.mark.parametrize("where", ["evaluations", "tables.main.evaluations"])
@pytest.mark.parametrize(
    ("name", "target", "protocol"),
    [
        ("knn-10", "", "knn-10"),
        ("flowers-linear", "flowers", "linear"),
        ("flowers-finetune", "flowers", "finetune"),
        ("flowers-knn-20", "flowers", "knn-20"),
        ("grey-linear-moco-small", "grey", "linear-moco-small"),
        ("stl-semi-10", "stl", "semi-10"),
        ("coco-mask-rcnn", "coco", "mask-rcnn"),
        ("coco-faster-rcnn-small", "coco", "faster-rcnn-small"),
        # Of two sets whose names begin alike it is the longer one's.
        ("coco-20-knn-10", "coco-20", "knn-10"),
        # Torchvision's need no entry.
        ("cifar10-linear", "cifar10", "linear"),
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
    ("name", "message"),
    [
        ("flowers-liner", "there is no 'liner' among the protocols for flowers; did you mean 'linear'?"),
        ("cifar10-knn10", "there is no 'knn10' among the protocols for cifar10; did you mean 'knn-10'?"),
        ("coco-mask-rcn", "there is no 'mask-rcn' among the protocols for coco; did you mean 'mask-rcnn'?"),
        ("coco-", "there is no '' among the protocols for coco; known: faster-rcnn, faster-rcnn-small, mask-rcnn, "),
        # Detectors need boxes, which no other set has; images with boxes have no classes.
        ("coco-linear", "there is no 'linear' among the protocols for coco; known: faster-rcnn, "),
        ("coco-knn-10", "there is no 'knn-10' among the protocols for coco; known: faster-rcnn, "),
        ("cifar10-mask-rcnn", "there is no 'mask-rcnn' among the protocols for cifar10; known: finetune, knn-1, "),
        ("mask-rcnn", "there is no 'mask-rcnn' among the protocols; "),
        # What only other sets are measured by, and a set alone.
        ("linear", "there is no 'linear' among the protocols; "),
        ("finetune", "there is no 'finetune' among the protocols; "),
        ("cifar10", "there is no 'cifar10' among the protocols; "),
    ],
)
def test_an_evaluation_of_no_set_or_protocol_is_refused_with_the_nearest_name(where, name, message):
    with pytest.raises(BingoError) as caught:
        parse_study(changed(where, ["knn-10", name], changed("transfer", TRANSFER)), "s.yaml")
    assert str(caught.value).startswith(f"s.yaml: {where}: {message}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("flower-linear", "flowers-linear"),
        ("cifar-10-linear", "cifar10-linear"),
        ("cocoa-mask-rcnn", "coco-mask-rcnn"),
    ],
)
def test_the_nearest_name_is_found_for_a_misspelt_set_too(name, nearest):
    with pytest.raises(BingoError) as caught:
        parse_study(changed("evaluations", [name], changed("transfer", TRANSFER)), "s.yaml")
    assert str(caught.value).endswith(f"; did you mean '{nearest}'?")


def test_an_entry_of_transfer_stands_before_the_set_of_its_name():
    images = {"source": "folder", "train": "my-cifar/train", "val": "my-cifar/val"}
    study = changed("transfer", {"cifar10": images})
    assert parse_study({**study, "evaluations": ["cifar10-linear"]}, "s").target("cifar10").train == "my-cifar/train"
    with pytest.raises(BingoError, match="there is no 'mask-rcnn' among the protocols for cifar10"):
        parse_study({**study, "evaluations": ["cifar10-mask-rcnn"]}, "s")
    coco = parse_study({**STUDY, "transfer": {"cifar10": TRANSFER["coco"]}, "evaluations": ["cifar10-mask-rcnn"]}, "s")
    assert coco.target("cifar10").val_annotations == "v.json"


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (
            "transfer.x",
            {"source": "coco", "train": "t"},
            "transfer.x.train_annotations: this key is required (and 2 more)",
        ),
        (
            "transfer.x",
            {**TRANSFER["coco"], "labels": "none"},
            "transfer.x: unknown key 'labels'; known: source, train, ",
        ),
        ("transfer.x", {"source": "folder"}, "transfer.x.train: this key is required"),
        (
            "transfer.x",
            {"source": "imagenet"},
            "transfer.x.source: found 'imagenet', allowed: 'demo', 'fashion-mnist', ",
        ),
        ("transfer.x", {"train": "x"}, "transfer.x: the key 'source' is required"),
        # How images are prepared and loaded is said once, in `data`.
        ("transfer.x", {"source": "demo", "workers": 1}, "transfer.x: unknown key 'workers'; "),
        ("transfer.x", {"source": "demo", "preprocessing": {}}, "transfer.x: unknown key 'preprocessing'; "),
        ("transfer.x", {**TRANSFER["flowers"], "label_lists": {}}, "transfer.x: unknown key 'label_lists'; "),
        (
            "transfer.x",
            {"source": "demo", "max_train": 0},
            "transfer.x.max_train: input should be greater than or equal",
        ),
        ("transfer", {"X y": {"source": "demo"}}, "transfer.X y: string should match pattern"),
        ("data", TRANSFER["coco"], "data.source: found 'coco', allowed: 'demo', "),
        ("data", {"source": "demo", "label_lists": {}}, "data: unknown key 'label_lists'; "),
        (
            "data",
            {"source": "folder", "train": "x", "label_lists": {"semi-5": "x"}},
            "data.label_lists.semi-5: input should be 'semi-1' or 'semi-10', found 'semi-5'",
        ),
        (
            "data",
            {"source": "folder", "train": "x", "label_lists": {"semi-1": 1}},
            "data.label_lists.semi-1: input should be a valid string, found 1",
        ),
        ("tables.main.published", 3, "tables.main.published: input should be a valid string, found 3"),
        ("tables.main.teachers", "no", "tables.main.teachers: input should be a valid boolean, found 'no'"),
        ("tables.main.publishd", "x.csv", "tables.main: unknown key 'publishd'; did you mean 'published'?"),
        (
            "tables.main.evaluations",
            ["knn-2"],
            "tables.main.evaluations: there is no 'knn-2' among the protocols; did ",
        ),
        ("tables.main.evaluations", ["knn-1", "knn-1"], "tables.main.evaluations: a value is repeated"),
    ],
)
def test_a_fault_in_what_is_measured_is_such_a_line_too(path, value, message):
    with pytest.raises(BingoError) as caught:
        parse_study(changed(path, value, changed("transfer", {})), "s.yaml")
    assert str(caught.value).startswith(f"s.yaml: {message}")
    assert "\n" not in str(caught.value)


def test_a_study_with_every_kind_of_set_and_table_is_the_same_written_out_in_full():
    study = changed("transfer", TRANSFER)
    study["data"] = {"source": "folder", "train": "x", "label_lists": {"semi-1": "1.txt", "semi-10": "10.txt"}}
    # What only a table names is measured too, of the networks of that table.
    study["tables"]["more"] = {
        "title": "T", "students": ["bingo"], "teachers": False, "evaluations": ["semi-1"], "published": "paper.csv"
    }  # fmt: skip
    parsed = parse_study(study, "s")
    whole = parsed.model_dump(mode="json")
    for written in (study, whole):
        jsonschema.validate(written, study_schema())
    assert parse_study(whole, "s") == parsed
    assert parsed.evaluations == ["knn-10"]
    assert parsed.tables["more"].evaluations == ["semi-1"]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
PATHS = [
    "study",
    "seeds",
    "data",
    "data.source",
    "data.preprocessing",
    "teachers",
    "teachers.big",
    "teachers.big.backbone",
    "teachers.big.training",
    "bags.knn-5",
    "bags.knn-5.size",
    "students.bingo",
    "students.bingo.method",
    "students.bingo.teacher",
    "students.bingo.teacher_views",
    "students.bingo.terms",
    "students.bingo.training",
    "students.other",
    "teachers.other",
    "bags.other",
    "transfer",
    "transfer.other",
    "transfer.other.source",
    "evaluations",
    "tables",
    "tables.main.evaluations",
    "tables.main.published",
    "tables.main.teachers",
]


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.sampled_from(PATHS), JSON)
def test_whatever_stands_at_a_key_the_answer_is_a_study_or_one_line(path, value):
    raw = {**changed("transfer", {"other": {"source": "demo"}}), "evaluations": ["other-linear"]}
    try:
        answer = parse_study(changed(path, value, raw), "s.yaml")
    except BingoError as error:
        answer = str(error)
    assert isinstance(answer, Study) or (answer.startswith("s.yaml: ") and "\n" not in answer)


def test_a_study_without_networks_is_refused():
    with pytest.raises(BingoError, match="s: a study needs an entry in teachers or in students"):
        parse_study({"study": "s", "data": {"source": "demo"}}, "s")


def test_a_student_distils_the_teacher_of_its_bags():
    study = parse_study(STUDY, "s")
    assert study.teacher_of("bingo") == "big"
    assert study.teacher_of("alone") is None


# A student of every kind, in what a study may say of it; `big` teaches them all.
EVERY_STUDENT = {
    "alone": {"method": "moco"},
    "paper": {"method": "bingo", "bags": "knn-5"},
    "intra": {"method": "bingo", "bags": "knn-5", "terms": ["intra"]},
    "official": {"method": "bingo", "bags": "knn-5", "objective": "official"},
    "inter": {
        "method": "bingo", "bags": "knn-5", "objective": "official", "terms": ["inter"], "inter_free_epochs": 0
    },
    "stored": {"method": "bingo", "bags": "knn-5", "teacher_views": 3},
    "batch": {"method": "bingo", "bags": "knn-5", "teacher_batch_norm": "batch"},
    "seed": {"method": "seed", "teacher": "big"},
    "disco": {"method": "disco", "teacher": "big", "teacher_views": 5},
    "compress": {"method": "compress", "teacher": "big"},
    "compress 1q": {"method": "compress", "teacher": "big", "variant": "1q", "teacher_views": 4},
    "steps": {"method": "moco", "training": {"schedule": {"milestones": [2, 4], "factor": 0.5}}},
    "timm": {"method": "moco", "backbone": {"architecture": "timm/resnet18"}},
}  # fmt: skip


@pytest.fixture
def every_student():
    students = {name.replace(" ", "-"): {"backbone": BACKBONE, **entry} for name, entry in EVERY_STUDENT.items()}
    return {**STUDY, "students": students, "tables": {}}


def test_a_study_written_out_in_full_is_the_same_study(every_student):
    study = parse_study(every_student, "s")
    whole = study.model_dump(mode="json")
    jsonschema.validate(every_student, study_schema())
    jsonschema.validate(whole, study_schema())
    assert parse_study(whole, "s") == study


def test_students_say_which_teacher_and_bags_they_need(every_student):
    study = parse_study(every_student, "s")
    assert {name for name in study.students if study.teacher_of(name) is None} == {"alone", "steps", "timm"}
    assert {name for name in study.students if study.bags_of(name) == "knn-5"} == {
        "paper",
        "official",
        "inter",
        "stored",
        "batch",
    }
    # Its bags name its teacher, though it draws nothing from them.
    assert study.bags_of("intra") is None
    assert study.teacher_of("intra") == "big"
    assert study.bags_of("alone") is None
