"""Faults in a study file: one line with the key, what was found, and what is allowed."""

import copy
import json

import jsonschema
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from bingo import jobs
from bingo.config import Study, parse_study, study_schema
from bingo.errors import BingoError

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
        ("students.bingo.method", "bing", "s.yaml: students.bingo.method: found 'bing', allowed: 'moco', 'bingo'"),
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
