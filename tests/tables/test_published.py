"""Files of published numbers: what is read of them, what is refused, and how they stand in a table."""

import csv

import pytest

from bingo.errors import BingoError
from bingo.report.table import Published, read_published

from .results import PUBLISHED, RESULTS, ROWS, make_table, make_text, markdown_rows, row, write_results

HEADER = "method,student,teacher,protocol,metric,published,source"
LINE = 'bingo,resnet18,r50,linear,top1,61.4,"Authors, 2022"'


@pytest.fixture
def file(tmp_path):
    def write(*lines):
        path = tmp_path / "published.csv"
        path.write_text("\n".join(lines) + "\n")
        return path

    return write


@pytest.fixture
def rows(tmp_path, file):
    """Make a table and return its lines as dictionaries."""

    def make(lines, results=(), **shown):
        output = tmp_path / "table.csv"
        make_table(write_results(tmp_path, list(results)), file(HEADER, *lines), output, **shown)
        return list(csv.DictReader(output.read_text().splitlines()))

    return make


def test_a_number_is_read_as_it_stands(file):
    expected = Published("bingo", "resnet18", "r50", "linear", "top1", 61.4, "Authors, 2022")
    assert read_published(file(HEADER, LINE)) == [expected]
    # Columns are known by their names, and others are let alone.
    reordered = file(
        "note,source,published,metric,protocol,teacher,student,method",
        '"a, b","Authors, 2022",61.4,top1,linear,r50,resnet18,bingo',
    )
    assert read_published(reordered) == [expected]


@pytest.mark.parametrize("name", ["null", "nan", "NA", "none", "007"])
def test_names_are_text_whatever_they_look_like(file, name):
    found = read_published(file(HEADER, f"{name},{name},{name},{name},{name},1.5,{name}"))
    assert found == [Published(name, name, name, name, name, 1.5, name)]


@pytest.mark.parametrize("column", HEADER.split(","))
def test_a_missing_or_misspelt_column_is_refused_by_name(file, column):
    path = file(HEADER.replace(column, f"{column}s"), LINE)
    with pytest.raises(BingoError) as caught:
        read_published(path)
    assert str(caught.value).startswith(f"{path}: cannot be read as published numbers (")
    assert column in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "line",
    [
        LINE.replace("61.4", ""),
        LINE.replace("61.4", "n/a"),
        LINE.replace("61.4", "nan"),
        LINE.replace("61.4", "inf"),
        LINE.replace("61.4", "61.4 %"),
        LINE.replace('"', ""),  # so its source is two cells
        "bingo,resnet18,r50,linear,top1",
        'bingo,resnet18,r50,linear,top1,61.4,"Authors',
    ],
)
def test_damaged_numbers_are_refused_by_name(file, line, tmp_path):
    path = file(HEADER, line)
    with pytest.raises(BingoError) as caught:
        make_table([], path, tmp_path / "table.csv")
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "table.csv").exists()


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"\n\n", None])
def test_what_is_no_such_file_is_refused_by_name(tmp_path, content):
    path = tmp_path / "published.csv"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(BingoError) as caught:
        read_published(path)
    assert str(caught.value).startswith(f"{path}: cannot be read as published numbers (")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("other", ["61.4", "61.5"])
def test_two_numbers_for_the_same_are_refused(file, other):
    path = file(HEADER, LINE, LINE.replace("top1", "top5"), LINE.replace("61.4", other).replace("2022", "2021"))
    with pytest.raises(BingoError) as caught:
        read_published(path)
    assert str(caught.value) == f"{path}: two numbers for bingo, resnet18, r50, linear, top1; leave one out"


def test_two_numbers_for_one_teacher_are_refused(file):
    # A teacher is known by its name, so one of them would be lost, and the other perhaps that of another network.
    path = file(HEADER, "moco,,r50,linear,top1,67.4,Authors", "swav,,r50,linear,top1,75.3,Others")
    with pytest.raises(BingoError) as caught:
        make_table([], path, path.with_name("table.csv"))
    assert str(caught.value).startswith(f"{path}: two numbers for ")


def test_a_linear_probe_on_fresh_views_stands_beside_the_published_one_and_no_other_protocol_does(rows):
    shown = ["linear-cached", "linear-bingo", "cifar10-linear", "knn-10"]
    found = {row["protocol"]: row["published"] for row in rows([LINE], rows=ROWS[2:3], evaluations=shown)}
    assert found == {"linear-cached": "", "linear-bingo": "61.4000", "cifar10-linear": "", "knn-10": ""}


@pytest.mark.parametrize(
    "other",
    [
        row("x", "seed", "x", "r50", "knn-5", "resnet18"),
        row("x", "bingo", "x", "r152", "knn-5", "resnet18"),
        row("x", "bingo", "x", "", "knn-5", "resnet18"),
        row("x", "bingo", "x", "r50", "knn-5", "resnet34"),
        row("x", "bingo", "resnet18", "r50", "knn-5", "resnet34"),  # its name is no architecture
    ],
)
def test_a_number_of_another_network_is_a_row_of_its_own(rows, other):
    alone, own = rows([LINE], rows=[other], evaluations=["linear-moco"])
    assert (alone["method"], alone["student"], alone["teacher"]) == ("bingo", "resnet18", "r50")
    assert (alone["published"], alone["mean"], alone["seeds"]) == ("61.4000", "", "0")
    assert (own["student"], own["published"], own["source"]) == (other.student, "", "")


def test_a_teacher_is_known_by_its_name_whatever_made_it(rows):
    line = "swav,,r50,linear,top1,75.3,Others"
    teacher, student = ROWS[0], ROWS[1]
    assert [row["published"] for row in rows([line], **_table(teacher))] == ["75.3000"]
    # A table that shows no teachers shows no published ones.
    assert [row["published"] for row in rows([line], **_table(student))] == [""]
    assert [row["published"] for row in rows([line.replace("r50", "r152")], **_table(teacher))] == ["75.3000", ""]


def _table(*rows):
    return {"rows": list(rows), "evaluations": ["linear-moco"]}


def test_numbers_by_protocols_that_the_table_has_not_are_left_out(rows):
    found = rows([LINE.replace("linear", "semi-1"), LINE.replace("resnet18", "resnet34").replace("linear", "semi-1")])
    assert all(row["published"] == row["source"] == "" for row in found)
    assert {row["protocol"] for row in found} == {"linear-moco", "knn-10"}


def test_a_protocol_without_top_1_gets_no_row_of_top_1(rows):
    shown = {"rows": ROWS[1:3], "evaluations": ["coco-mask-rcnn"]}
    results = [("alone", "coco-mask-rcnn", 0, {"box_ap": 30.0, "box_ap50": 50.0})]
    line = "bingo,resnet18,r50,coco-mask-rcnn,box_ap,33.0,Others"
    found = {(row["student"], row["metric"]): (row["mean"], row["published"]) for row in rows([line], results, **shown)}
    assert found.pop(("bingo", "box_ap")) == ("", "33.0000")
    assert found.pop(("alone", "box_ap")) == ("30.0000", "")
    assert found.pop(("alone", "box_ap50")) == ("50.0000", "")
    assert "top1" not in {metric for _, metric in found}


@pytest.mark.parametrize("number", ["61", "61.4", "61.45", "0.4"])
def test_a_published_number_is_quoted_with_all_its_digits(rows, tmp_path, number):
    rows([LINE.replace("61.4", number)], RESULTS)
    make_text("T", tmp_path / "table.csv", tmp_path / "t.md", tmp_path / "t.tex")
    header, _, *body = markdown_rows((tmp_path / "t.md").read_text())
    shown = {line[header.index("published")] for line in body} - {""}
    assert {float(cell) for cell in shown} == {float(number)}


def test_numbers_of_none_of_the_protocols_leave_the_table_as_it_is_without(rows, tmp_path):
    results = write_results(tmp_path, RESULTS)
    make_table(results, None, tmp_path / "without.csv")
    rows([line for line in PUBLISHED.splitlines() if ",semi-1," in line], RESULTS)
    assert (tmp_path / "table.csv").read_text() == (tmp_path / "without.csv").read_text()
