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

from bingo import jobs
from bingo.config import Study, parse_study, study_schema
from bingo.errors import BingoError
from bingo.methods import Student

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


def changed(path, value):
    study = copy.deepcopy(STUDY)
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


def test_every_fault_that_the_project_finds_is_of_the_type_that_is_said_in_full():
    # Of another type it would end in what was found: a whole section, say.
    sources = {path: path.read_text() for path in (Path(__file__).parents[1] / "bingo").rglob("*.py")}
    calls = [call for text in sources.values() for call in re.findall(r"PydanticCustomError\(\s*([^,]+),", text)]
    assert set(calls) == {'"said"'}
    assert len(calls) > 10


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
    "evaluations",
    "tables",
    "tables.main.evaluations",
]


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.sampled_from(PATHS), JSON)
def test_whatever_stands_at_a_key_the_answer_is_a_study_or_one_line(path, value):
    try:
        answer = parse_study(changed(path, value), "s.yaml")
    except BingoError as error:
        answer = str(error)
    assert isinstance(answer, Study) or (answer.startswith("s.yaml: ") and "\n" not in answer)


def test_a_study_without_networks_is_refused():
    with pytest.raises(BingoError, match="s: a study needs an entry in teachers or in students"):
        parse_study({"study": "s", "data": {"source": "demo"}}, "s")


def test_settings_are_canonical_and_hold_what_the_stage_depends_on():
    study = parse_study(STUDY, "s")
    reordered = parse_study(dict(reversed(STUDY.items())), "s")
    assert jobs.student_settings(study, "bingo", 0) == jobs.student_settings(reordered, "bingo", 0)
    other = parse_study(changed("data", {"source": "demo", "workers": 3, "max_val": 7}), "s")
    assert jobs.data_settings(study, "train") == jobs.data_settings(other, "train")
    assert jobs.data_settings(study, "val") != jobs.data_settings(other, "val")
    explicit = changed("bags.knn-5.size", 5)  # the default, written out
    assert jobs.bags_settings(parse_study(explicit, "s"), "knn-5") == jobs.bags_settings(study, "knn-5")
    assert json.loads(jobs.student_settings(study, "bingo", 7))["seed"] == 7


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


def test_a_stage_reads_the_settings_that_the_study_hands_it(every_student):
    study = parse_study(every_student, "s")
    for name, entry in study.students.items():
        job = jobs.StudentJob.model_validate_json(jobs.student_settings(study, name, 1))
        changed_name = {"teacher": None} if hasattr(entry, "teacher") else {}
        assert job.student == entry.model_copy(update=changed_name)
        assert job.preprocessing == study.data.preprocessing.network_input()
    job = jobs.TeacherJob.model_validate_json(jobs.teacher_settings(study, "big"))
    assert job.teacher == study.teachers["big"]
    job = jobs.TargetsJob.model_validate_json(jobs.targets_settings(study, "paper", "auto", "features", 1, 5))
    drawn = {"recipe": "paper", "precision": "auto", "layer": "features", "number": 1, "views": 5}
    assert job.model_dump(include=set(drawn)) == drawn
    assert job.preprocessing == study.data.preprocessing.network_input()


def test_a_study_written_out_in_full_is_the_same_study(every_student):
    study = parse_study(every_student, "s")
    whole = study.model_dump(mode="json")
    jsonschema.validate(every_student, study_schema())
    jsonschema.validate(whole, study_schema())
    assert parse_study(whole, "s") == study


def test_other_students_are_no_part_of_the_settings_of_stored_outputs(every_student):
    drawn = ("paper", "auto", "projection", 0, 3)
    before = jobs.targets_settings(parse_study(every_student, "s"), *drawn)
    every_student["students"] = {"stored": every_student["students"]["stored"]}
    assert jobs.targets_settings(parse_study(every_student, "s"), *drawn) == before
    every_student["students"] = {}
    assert jobs.targets_settings(parse_study(every_student, "s"), *drawn) == before
    for position, value in enumerate(("small", "float32", "features", 1, 4)):
        changed_one = [*drawn[:position], value, *drawn[position + 1 :]]
        assert jobs.targets_settings(parse_study(every_student, "s"), *changed_one) != before


def test_the_name_of_a_teacher_is_no_part_of_a_students_settings(every_student):
    renamed = json.loads(json.dumps(every_student).replace('"big"', '"large"'))
    for name in every_student["students"]:
        first, second = (jobs.student_settings(parse_study(study, "s"), name, 0) for study in (every_student, renamed))
        assert first == second


def test_where_an_imported_teachers_file_lies_is_no_part_of_its_settings():
    settings_of = [
        jobs.teacher_settings(parse_study(changed("teachers.other", {"checkpoint": path, **keys}), "s"), "other")
        for path, keys in (("a.pt", {}), ("b/c.pt", {}), ("a.pt", {"format": "swav"}), ("a.pt", {"part": "teacher"}))
    ]
    assert settings_of[0] == settings_of[1]
    assert len(set(settings_of)) == 3
    assert jobs.ImportJob.model_validate_json(settings_of[2]).format == "swav"


def test_settings_that_cannot_change_a_teacher_view_are_no_part_of_the_targets(every_student):
    def targets():
        return jobs.targets_settings(parse_study(every_student, "s"), "paper", "auto", "projection", 0, 3)

    before = targets()
    every_student["data"] = {"source": "demo", "workers": 3, "preprocessing": {"resize": 300}}
    assert targets() == before
    every_student["data"] = {"source": "demo", "preprocessing": {"size": 128}}
    assert targets() != before


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
