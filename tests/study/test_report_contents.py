"""What tables and figures show of a study: which networks, under which names."""

import pytest

from bingo.study.report_contents import bag_size_series, model_seeds, table_rows
from bingo.study.report_jobs import AccuracyFigureJob, TrainingFigureJob
from bingo.study.schema import parse_study

from .every_job import STUDY, changed, make_data, plan_of

TEACHERS = [("big", "moco", "", "big", "", ""), ("given", "imported", "", "given", "", "")]
ALONE = ("alone", "moco", "alone", "", "", "resnet18")
BINGO = ("bingo-5", "bingo", "bingo-5", "big", "knn-5", "resnet18")
STUDENT = STUDY["students"]["bingo-5"]


def study_of(raw):
    return parse_study(raw, "s.yaml")


def rows(raw, table):
    shown = table_rows(study_of(raw), table)
    return [(row.model, row.method, row.student, row.teacher, row.bags, row.architecture) for row in shown]


def test_a_table_has_all_networks_or_those_it_names_below_their_teachers():
    everything = rows(STUDY, "all")
    assert everything[:4] == [*TEACHERS, ALONE, BINGO]
    assert everything[5:] == [
        ("label", "bingo", "label", "given", "classes", ""),
        ("seed", "seed", "seed", "given", "", "resnet18"),
    ]
    assert rows(STUDY, "some") == [TEACHERS[0], BINGO, ALONE]
    assert rows(changed("tables.some.teachers", False), "some") == [BINGO, ALONE]
    assert rows(changed("tables.some.students", ["alone"]), "some") == [ALONE]
    # Bags from which nothing is drawn have no part in a student.
    assert rows(changed("students.bingo-5.terms", ["intra"]), "some")[1] == (
        "bingo-5",
        "bingo",
        "bingo-5",
        "big",
        "",
        "",
    )


@pytest.mark.parametrize(
    ("change", "published"),
    [
        ({}, "resnet18"),
        ({"objective": "official"}, "resnet18"),
        ({"bags": "knn-9"}, "resnet18"),
        ({"bags": "classes", "teacher": "big"}, ""),
        ({"terms": ["inter"]}, ""),
        ({"backbone": {"architecture": "resnet18", "width": 0.5}}, ""),
        ({"backbone": {"architecture": "resnet18", "stem": "small"}}, ""),
        ({"backbone": {"architecture": "resnet34"}}, "resnet34"),
    ],
    ids=str,
)
def test_publications_know_full_width_networks_and_bags_of_neighbours(change, published):
    study = study_of(changed("students.bingo-5", {**STUDENT, **change}))
    assert {row.model: row.architecture for row in table_rows(study, "some")}["bingo-5"] == published


def test_a_teacher_has_results_for_its_own_seed_a_student_for_those_of_the_study():
    study = study_of(changed("teachers.big.seed", 7))
    seeds = {model: model_seeds(study, model) for model in ("big", "given", "alone")}
    assert seeds == {"big": [7], "given": [0], "alone": [0, 1]}


FIRST = ("bingo paper, resnet18 from big", {"bingo-5": 5, "bingo-9": 9})
WIDE = {**STUDENT, "backbone": {"architecture": "resnet18", "width": 0.5}, "objective": "official"}
FASTER = {**STUDENT, "training": {"lr": 0.5}}
INTER, INTRA = {**STUDENT, "terms": ["inter"]}, {**STUDENT, "terms": ["intra"]}
NINE = {"bags": "knn-9"}


@pytest.mark.parametrize(
    ("students", "expected"),
    [
        ({}, [FIRST]),
        ({"faster": FASTER, "kmeans": {**STUDENT, "bags": "kmeans"}, "other": {**STUDENT, "bags": "other"}}, [FIRST]),
        # Naming the teacher that its bags have anyway is no difference.
        ({"named": {**STUDENT, **NINE, "teacher": "big"}}, [(FIRST[0], {**FIRST[1], "named": 9})]),
        (
            {"wide": WIDE, "wider": {**WIDE, **NINE}},
            [FIRST, ("bingo official, resnet18, width 0.5 from big", {"wide": 5, "wider": 9})],
        ),
        (
            {"terms": INTER, "more": {**INTER, **NINE}},
            [FIRST, ("bingo paper inter, resnet18 from big", {"terms": 5, "more": 9})],
        ),
        # Two students of one size are no series.
        ({"faster": FASTER, "again": {**FASTER, "bags": "again"}}, [FIRST]),
        # Students that draw nothing from their bags do not differ by them.
        ({"intra": INTRA, "more": {**INTRA, **NINE}}, [FIRST]),
    ],
    ids=["two sizes", "other", "named", "width", "terms", "one size", "intra"],
)
def test_students_that_differ_in_nothing_but_the_size_of_their_bags_are_a_series(students, expected):
    raw = changed("bags.other", {"criterion": "knn", "teacher": "given", "size": 3})
    raw["bags"] |= {"kmeans": {"criterion": "kmeans", "teacher": "big", "clusters": 9}, "again": raw["bags"]["knn-5"]}
    raw["students"] = {**STUDY["students"], **students}
    assert [(found.label, found.sizes) for found in bag_size_series(study_of(raw))] == expected


def test_bags_that_were_searched_in_different_ways_are_no_series():
    assert bag_size_series(study_of(changed("bags.knn-9.search", {"ivf": {}}))) == []


def test_figures_name_losses_that_compare_and_networks_as_they_are_printed(tmp_path, monkeypatch):
    make_data(tmp_path)
    monkeypatch.chdir(tmp_path)
    raw = changed("students.alone.backbone", {"architecture": "resnet10", "stem": "small", "width": 0.0625})
    one = {"method": "compress", "variant": "1q", "teacher": "big", "backbone": {"architecture": "resnet18"}}
    raw["students"] |= {"official": {**STUDENT, "objective": "official"}, "one": one}
    bingo = dict.fromkeys(("bingo-5", "bingo-9", "label"), "bingo paper")
    assert TrainingFigureJob.of(plan_of(raw)).panels == {
        **{"big": "moco", "alone": "moco", **bingo, "seed": "seed"},
        **{"official": "bingo official", "one": "compress 1q"},
    }
    architectures = AccuracyFigureJob.of(plan_of(raw), "all").architectures
    assert (architectures["alone"], architectures["seed"]) == ("resnet10, width 0.0625", "resnet18")
