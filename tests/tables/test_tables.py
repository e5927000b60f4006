import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bingo.errors import BingoError
from bingo.jobs import Row, TableJob, TextJob
from bingo.tables.stage import COLUMNS, make_table, make_text, read_table

ROWS = [
    Row(model="r50", method="moco", student="", teacher="r50", bags=""),
    Row(model="alone", method="moco", student="alone", teacher="", bags=""),
    Row(model="distilled", method="bingo", student="distilled", teacher="r50", bags="knn-5"),
]
JOB = TableJob(version=1, rows=ROWS, evaluations=["linear-moco", "knn-10"])

RESULTS = [
    ("r50", "linear-moco", 0, {"top1": 80.5, "top5": 99.0}),
    ("r50", "knn-10", 0, {"top1": 70.0, "top5": 95.0}),
    ("alone", "linear-moco", 0, {"top1": 60.0, "top5": 90.0}),
    ("alone", "linear-moco", 1, {"top1": 62.0, "top5": 91.0}),
    ("alone", "linear-moco", 2, {"top1": 64.0, "top5": 95.0}),
    ("distilled", "linear-moco", 0, {"top1": 65.5, "top5": 93.0}),
    ("distilled", "linear-moco", 1, {"top1": 66.5, "top5": 93.0}),
    ("distilled", "knn-10", 1, {"top1": 55.123456}),
]

# By hand: 60, 62, 64 deviate by -2, 0, 2, so their sample variance is 8 / 2; 90, 91, 95 by -2, -1, 3: 14 / 2;
# 65.5 and 66.5 by half each: 0.5 / 1. `alone` has no knn-10.
TABLE = """\
method,student,teacher,bags,protocol,metric,mean,std,seeds,published,source
moco,,r50,,linear-moco,top1,80.5000,,1,,
moco,,r50,,linear-moco,top5,99.0000,,1,,
moco,,r50,,knn-10,top1,70.0000,,1,,
moco,,r50,,knn-10,top5,95.0000,,1,,
moco,alone,,,linear-moco,top1,62.0000,2.0000,3,,
moco,alone,,,linear-moco,top5,92.0000,2.6458,3,,
moco,alone,,,knn-10,top1,,,0,,
bingo,distilled,r50,knn-5,linear-moco,top1,66.0000,0.7071,2,,
bingo,distilled,r50,knn-5,linear-moco,top5,93.0000,0.0000,2,,
bingo,distilled,r50,knn-5,knn-10,top1,55.1235,,1,,
"""

NETWORKS = [
    ["moco", "", "r50", "", "80.50", "99.00", "70.00", "95.00", "1"],
    ["moco", "alone", "", "", "62.00 ± 2.00", "92.00 ± 2.65", "", "", "3"],
    ["bingo", "distilled", "r50", "knn-5", "66.00 ± 0.71", "93.00 ± 0.00", "55.12", "", "2"],
]
HEADER = ["method", "student", "teacher", "bags", "linear-moco top1", "linear-moco top5", "knn-10 top1", "knn-10 top5"]


def write_results(folder, results):
    paths = []
    for model, protocol, seed, metrics in results:
        path = folder / model / f"seed-{seed}" / f"{protocol}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"model": model, "protocol": protocol, "seed": seed, "metrics": metrics}))
        paths.append(path)
    return paths


@pytest.fixture
def texts(tmp_path):
    """Render a CSV: (Markdown, LaTeX)."""

    def render(csv, title="A title"):
        (tmp_path / "table.csv").write_text(csv)
        paths = tmp_path / "table.md", tmp_path / "table.tex"
        make_text(TextJob(version=1, title=title), tmp_path / "table.csv", *paths)
        return [path.read_text() for path in paths]

    return render


def markdown_rows(markdown):
    lines = [line for line in markdown.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def latex_rows(latex):
    lines = [line.removesuffix(r" \\") for line in latex.splitlines() if line.endswith(r" \\")]
    return [[cell.strip() for cell in line.split(" & ")] for line in lines]


def test_the_csv_is_the_table_worked_out_by_hand(tmp_path):
    make_table(JOB, write_results(tmp_path, RESULTS), tmp_path / "tables" / "table.csv")
    assert (tmp_path / "tables" / "table.csv").read_text() == TABLE


def test_the_order_of_result_files_does_not_matter(tmp_path):
    make_table(JOB, write_results(tmp_path, RESULTS)[::-1], tmp_path / "table.csv")
    numbers = {tuple(line.split(",")) for line in (tmp_path / "table.csv").read_text().splitlines()}
    assert numbers == {tuple(line.split(",")) for line in TABLE.splitlines()}


def test_without_results_there_is_no_number(tmp_path):
    make_table(JOB, [], tmp_path / "table.csv")
    frame = pd.read_csv(tmp_path / "table.csv")
    assert list(frame.columns) == COLUMNS
    assert len(frame) == 6
    assert frame[["mean", "std", "published"]].isna().all(axis=None)
    assert (frame["seeds"] == 0).all()


@settings(max_examples=20, deadline=None)
@given(values=st.lists(st.floats(0, 100), min_size=1, max_size=6))
def test_mean_and_std_are_those_of_the_sample(tmp_path_factory, values):
    folder = tmp_path_factory.mktemp("results")
    paths = write_results(folder, [("alone", "knn-10", i, {"top1": value}) for i, value in enumerate(values)])
    make_table(TableJob(version=1, rows=ROWS[1:2], evaluations=["knn-10"]), paths, folder / "table.csv")
    row = pd.read_csv(folder / "table.csv").iloc[0]
    assert row["mean"] == pytest.approx(np.mean(values), abs=6e-5)
    if len(values) == 1:
        assert np.isnan(row["std"])
    else:
        assert row["std"] == pytest.approx(np.std(values, ddof=1), abs=6e-5)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b'{"model": "alone", "protocol": "knn-10", "metr',
        b"[1, 2]",
        b"3",
        b'{"model": "alone", "protocol": "knn-10"}',
        b'{"model": "alone", "metrics": {}}',
        b'{"model": "alone", "protocol": "knn-10", "seed": 0, "metrics": [50.0]}',
        b'{"model": "alone", "protocol": "knn-10", "seed": 0, "metrics": {"top1": "50"}}',
        b'{"model": "alone", "protocol": "knn-10", "seed": 0, "metrics": {"top1": null}}',
        b'{"model": "alone", "protocol": "knn-10", "metrics": {"top1": 50}}',
        b'{"model": "alone", "protocol": "knn-10", "seed": "0", "metrics": {"top1": 50}}',
        b'{"model": ["alone"], "protocol": "knn-10", "seed": 0, "metrics": {"top1": 50}}',
        b"\xff\xfe",
        None,
    ],
)
def test_damaged_results_are_refused_by_name(tmp_path, content):
    good, bad = write_results(tmp_path, RESULTS[:2])
    bad.unlink()
    if content is not None:
        bad.write_bytes(content)
    with pytest.raises(BingoError) as caught:
        make_table(JOB, [good, bad], tmp_path / "table.csv")
    assert str(caught.value).startswith(f"{bad}: ")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "table.csv").exists()


def test_markdown_and_latex_hold_the_title_and_the_numbers(texts):
    markdown, latex = texts(TABLE, "Students on ImageNet")
    assert markdown.splitlines()[0] == "# Students on ImageNet"
    assert r"\caption{Students on ImageNet}" in latex
    header, rule, *rows = markdown_rows(markdown)
    assert header == [*HEADER, "seeds"]
    assert all(set(cell) <= set(":-") for cell in rule)
    assert rows == NETWORKS
    assert latex_rows(latex) == [[*HEADER, "seeds"], *NETWORKS]


def test_special_characters_are_escaped_in_latex(texts):
    title = r"50% of a_b & c, #1 for $5 {x} ~y ^z \w"
    markdown, latex = texts(TABLE.replace("alone", "a_b"), title)
    expected = r"50\% of a\_b \& c, \#1 for \$5 \{x\} \textasciitilde{}y \textasciicircum{}z \textbackslash{}w"
    assert rf"\caption{{{expected}}}" in latex
    assert latex_rows(latex)[2][1] == r"a\_b"
    assert markdown.splitlines()[0] == f"# {title}"
    assert markdown_rows(markdown)[3][1] == "a_b"


@pytest.mark.parametrize("name", ["null", "nan", "na", "none", "001", "1e5", "true"])
def test_a_student_may_have_any_name(texts, tmp_path, name):
    rows = [Row(model=name, method="bingo", student=name, teacher=name, bags=name)]
    results = write_results(tmp_path, [(name, "knn-10", 0, {"top1": 50.0})])
    make_table(TableJob(version=1, rows=rows, evaluations=["knn-10"]), results, tmp_path / "names.csv")
    markdown, latex = texts((tmp_path / "names.csv").read_text())
    assert markdown_rows(markdown)[2] == latex_rows(latex)[1] == ["bingo", name, name, name, "50.00", "1"]


def test_a_table_without_protocols_is_empty(texts, tmp_path):
    make_table(TableJob(version=1, rows=ROWS, evaluations=[]), [], tmp_path / "empty.csv")
    assert (tmp_path / "empty.csv").read_text().splitlines() == [",".join(COLUMNS)]
    markdown, latex = texts((tmp_path / "empty.csv").read_text(), "Nothing yet")
    assert len(markdown_rows(markdown)) == 2
    assert r"\caption{Nothing yet}" in latex


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xfe",
        TABLE.replace("mean", "average").encode(),
        TABLE.replace("62.0000", "n/a").encode(),
        TABLE.replace(",3,", ",x,").encode(),
        TABLE.replace("moco,alone,", "moco,alone,,,,,,").encode(),
        None,
    ],
)
def test_damaged_tables_are_refused_by_name(tmp_path, content):
    path = tmp_path / "table.csv"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(BingoError) as caught:
        read_table(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_a_result_that_is_named_twice_is_refused(tmp_path):
    paths = write_results(tmp_path, RESULTS)
    with pytest.raises(BingoError, match="a second result of r50 by linear-moco with seed 0"):
        make_table(JOB, [*paths, paths[0]], tmp_path / "table.csv")
    assert not (tmp_path / "table.csv").exists()


@pytest.mark.parametrize(("model", "protocol"), [("of another table", "knn-10"), ("distilled", "of-another-table")])
def test_a_result_of_another_table_is_refused_by_name(tmp_path, model, protocol):
    (path,) = write_results(tmp_path, [(model, protocol, 0, {"top1": 12.0})])
    with pytest.raises(BingoError, match=f"{path}: {model} by {protocol} is not in this table"):
        make_table(JOB, [path], tmp_path / "table.csv")
    assert not (tmp_path / "table.csv").exists()
