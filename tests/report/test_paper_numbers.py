"""The published numbers that ship with the project, typed a second time: as their papers' tables have them."""

from pathlib import Path
from typing import get_args

import pytest
import yaml

from bingo.report.table import read_published
from bingo.study.protocols import PROTOCOLS, published_name
from bingo.study.report_contents import table_rows
from bingo.study.schema import Student, parse_study
from bingo.study.sections import ARCHITECTURES

CONFIG = Path(__file__).parents[2] / "config"
XU = "Xu et al., ICLR 2022, arXiv:2107.01691"

# ImageNet, linear evaluation, top-1 / top-5.
#   method       teacher   ResNet-18      ResNet-34
RESNETS = """
    supervised   -         69.5           72.8
    moco         -         52.5 / 77.0    57.4 / 81.6
    seed         r50-200   57.6 / 81.8    58.5 / 82.6
    disco        r50-200   60.6 / 83.7    62.5 / 85.4
    bingo        r50-200   61.4 / 84.3    63.5 / 85.7
    bingo        r50-800   64.0 / 85.7    66.1 / 87.2
    seed         r152      59.5 / 83.3    62.7 / 85.8
    disco        r152      65.5 / 86.7    68.1 / 88.6
    bingo        r152      65.9 / 87.1    69.1 / 88.9
    seed         r50x2     63.0 / 84.9    65.7 / 86.8
    disco        r50x2     65.2 / 86.8    67.6 / 88.6
    bingo        r50x2     65.5 / 87.0    68.9 / 89.0
"""
TEACHERS = {"r50-200": 67.4, "r50-800": 71.1, "r152": 74.1, "r50x2": 77.3}

# Linear top-1 with the teacher r50x2, MoCo-v2 without one: MoCo-v2 / SEED / DisCo / BINGO.
OTHER_STUDENTS = {
    "efficientnet_b0": "42.2 / 67.6 / 69.1 / 69.3",
    "mobilenet_v3_large": "36.3 / 68.2 / 58.9 / 67.1",
}

# ResNet-18, top-1 with 1 % / 10 % of the labels.
SEMI_SUPERVISED = """
    moco         -         30.9 / 45.8
    compress     r50-200   41.2 / 47.6
    seed         r50-200   39.1 / 50.2
    disco        r50-200   39.2 / 50.1
    bingo        r50-200   42.8 / 57.5
    seed         r152      44.3 / 54.8
    disco        r152      47.1 / 54.7
    bingo        r152      50.3 / 61.2
    bingo        r50x2     48.2 / 60.2
"""

# CompRess's README, linear / nearest neighbour, top-1.
COMPRESS = """
    resnet18     moco-r50  61.7 / 53.4
    resnet18     swav-r50  65.6 / 56.0
    mobilenet_v2 moco-r50  63.0 / 54.4
"""


def lines(text):
    return [line.replace(" / ", "/").split() for line in text.strip().splitlines()]


def pair(cell, names):
    return list(zip(names, map(float, cell.split("/")), strict=False))


def linear():
    found = {("swav" if name == "r50x2" else "moco", "", name, "linear", "top1"): TEACHERS[name] for name in TEACHERS}
    for method, teacher, *cells in lines(RESNETS):
        for student, cell in zip(("resnet18", "resnet34"), cells, strict=True):
            for metric, value in pair(cell, ("top1", "top5")):
                found[method, student, teacher.strip("-"), "linear", metric] = value
    return found


def other_students():
    methods = {"moco": "", "seed": "r50x2", "disco": "r50x2", "bingo": "r50x2"}
    return {
        (method, student, methods[method], "linear", "top1"): value
        for student, cell in OTHER_STUDENTS.items()
        for method, value in pair(cell, methods)
    }


def semi_supervised():
    return {
        (method, "resnet18", teacher.strip("-"), protocol, "top1"): value
        for method, teacher, cell in lines(SEMI_SUPERVISED)
        for protocol, value in pair(cell, ("semi-1", "semi-10"))
    }


def compress():
    return {
        ("compress", student, teacher, protocol, "top1"): value
        for student, teacher, cell in lines(COMPRESS)
        for protocol, value in pair(cell, ("linear", "knn-1"))
    }


FILES = {
    "linear": linear(),
    "other-students": other_students(),
    "semi-supervised": semi_supervised(),
    "compress": compress(),
}


@pytest.fixture(scope="module")
def imagenet():
    return parse_study(yaml.safe_load((CONFIG / "imagenet.yaml").read_text()), "imagenet.yaml")


def read(name):
    numbers = read_published(CONFIG / "paper" / f"{name}.csv")
    return {(n.method, n.student, n.teacher, n.protocol, n.metric): n for n in numbers}


def test_every_file_of_published_numbers_is_checked_against_a_second_reading():
    assert {path.stem for path in (CONFIG / "paper").iterdir()} == set(FILES)
    # 4 teachers, 2 supervised students and 11 methods' two students by two metrics; so no row of the table is lost.
    counts = {"linear": 4 + 2 + 11 * 4, "other-students": 8, "semi-supervised": 18, "compress": 6}
    assert {name: len(numbers) for name, numbers in FILES.items()} == counts


@pytest.mark.parametrize("name", FILES)
def test_the_numbers_are_those_of_the_papers(name):
    found = read(name)
    assert {key: number.published for key, number in found.items()} == FILES[name]
    source = "UMBCvision/CompRess, README" if name == "compress" else XU
    assert all(number.source.startswith(source) for number in found.values())


@pytest.mark.parametrize("name", FILES)
def test_names_are_those_that_studies_use(name, imagenet):
    methods = {get_args(kind.model_fields["method"].annotation)[0] for kind in get_args(get_args(Student)[0])}
    protocols = {published_name(protocol) for protocol in PROTOCOLS}
    for number in read(name).values():
        assert number.protocol in protocols
        assert number.metric in ("top1", "top5")
        assert not number.student or number.method in {*methods, "supervised"}
        if name != "compress":  # its teachers are no part of the paper's grid
            assert number.teacher in {"", *imagenet.teachers}
            assert number.student in {"", *ARCHITECTURES}


@pytest.mark.parametrize("name", ["linear", "other-students", "semi-supervised"])
def test_the_study_of_the_paper_has_just_the_networks_of_its_tables(name, imagenet):
    (table,) = [key for key, entry in imagenet.tables.items() if entry.published == f"config/paper/{name}.csv"]
    networks = {
        (row.method if row.student else "", row.architecture, row.teacher) for row in table_rows(imagenet, table)
    }
    published = [number for number in read(name).values() if number.method != "supervised"]
    assert {number.network() for number in published} == networks
    shown = {published_name(evaluation) for evaluation in imagenet.tables[table].evaluations}
    assert shown == {number.protocol for number in published}


def test_the_table_beside_compress_shows_its_protocols(imagenet):
    (table,) = [entry for entry in imagenet.tables.values() if entry.published == "config/paper/compress.csv"]
    assert {published_name(evaluation) for evaluation in table.evaluations} == {"linear", "knn-1"}
