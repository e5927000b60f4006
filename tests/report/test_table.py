"""Tables of result files: every number has its file, and a missing file is an empty cell."""

import contextlib
import csv
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bingo.artifacts.provenance import digest_json
from bingo.errors import BingoError
from bingo.report.table import COLUMNS, read_table

from .results import (
    PUBLISHED,
    RESULTS,
    ROWS,
    latex_rows,
    make_table,
    make_text,
    markdown_rows,
    row,
    write_results,
)

# Worked out by hand from `RESULTS` and `PUBLISHED`. 52, 52.4, 52.8 deviate by -0.4, 0, 0.4 from their mean, so their
# sample variance is 0.32 / 2; 76, 77, 78 by -1, 0, 1: 2 / 2; 61.3 and 61.9 by 0.3 each: 0.18 / 1; 54 and 59 by 2.5
# each: 12.5 / 1.
EXPECTED = Path(__file__).parent / "expected"
TABLE = (EXPECTED / "own.csv").read_text()
TITLES = {"own": "Small & large, 100 % of labels", "published": "Beside the paper's"}


@pytest.fixture
def made(tmp_path):
    """Make a table of results, and of published numbers where there are any: its path."""

    def make(results, published=None, **shown):
        path = None
        if published is not None:
            path = tmp_path / "published.csv"
            path.write_text(published)
        output = tmp_path / "tables" / "table.csv"
        make_table(write_results(tmp_path, results), path, output, **shown)
        return output

    return make


@pytest.fixture
def texts(tmp_path):
    """Render a CSV: (Markdown, LaTeX)."""

    def render(table, title="A title"):
        (tmp_path / "texts.csv").write_text(table)
        paths = tmp_path / "texts.md", tmp_path / "texts.tex"
        make_text(title, tmp_path / "texts.csv", *paths)
        return [path.read_text() for path in paths]

    return render


@pytest.mark.parametrize(("name", "published"), [("own", None), ("published", PUBLISHED)])
def test_a_table_is_the_one_worked_out_by_hand(name, published, made, texts):
    table = made(RESULTS, published).read_text()
    assert table == (EXPECTED / f"{name}.csv").read_text()
    markdown, latex = texts(table, TITLES[name])
    assert markdown == (EXPECTED / f"{name}.md").read_text()
    assert latex == (EXPECTED / f"{name}.tex").read_text()


@pytest.mark.parametrize("published", [None, PUBLISHED])
def test_the_order_of_result_files_does_not_matter(published, made):
    first = set(made(RESULTS, published).read_text().splitlines())
    assert set(made(RESULTS[::-1], published).read_text().splitlines()) == first


def cells(table):
    """Return what stands in each row of a CSV, by its names."""
    rows = list(csv.reader(table.read_text().splitlines()))[1:]
    found = {tuple(row[:6]): row[6:] for row in rows}
    assert len(found) == len(rows), "each number has one row"
    return found


@pytest.mark.parametrize("published", [None, PUBLISHED])
@pytest.mark.parametrize("position", range(len(RESULTS)))
def test_without_one_file_exactly_its_cells_change(position, published, made):
    model, protocol, _, metrics = RESULTS[position]
    others = [result for i, result in enumerate(RESULTS) if i != position]
    left = sum(result[:2] == (model, protocol) for result in others)
    whole, less = cells(made(RESULTS, published)), cells(made(others, published))
    own = {key for key in whole if (key[1] or key[2]) == model and key[4] == protocol}
    assert {key[5] for key in own} >= set(metrics)
    assert {key: found for key, found in less.items() if key not in own} == {
        key: found for key, found in whole.items() if key not in own
    }
    for key in own & set(less):
        mean, _, seeds, *beside = less[key]
        if key[5] in metrics:
            assert seeds == str(left)
            assert (mean == "") == (left == 0)
            assert less[key][:3] != whole[key][:3]
        assert beside == whole[key][3:]
    # Nobody knows any more that the protocol has the metrics that only its last file held; the row stays for top-1.
    gone = own - set(less)
    assert not gone or left == 0
    assert all(key[5] != "top1" and whole[key][3] == "" for key in gone)


@pytest.mark.parametrize("position", range(1, len(PUBLISHED.splitlines())))
def test_without_one_published_number_exactly_its_cells_change(position, made):
    lines = PUBLISHED.splitlines()
    method, student, teacher, protocol, metric, *_ = next(csv.reader([lines[position]]))
    less = cells(made(RESULTS, "\n".join([*lines[:position], *lines[position + 1 :]])))
    whole = cells(made(RESULTS, PUBLISHED))
    shown = {"linear": "linear-moco", "knn-10": "knn-10"}.get(protocol)
    if shown and student not in ("resnet18", ""):
        shown = protocol  # a network of nobody here, under the name it was published by
    changed = {key for key in whole if less.get(key) != whole[key]}
    assert set(less) <= set(whole)
    # `bingo` and `official` are one network to a publication.
    students = {"resnet18": {"alone"} if method == "moco" else {"bingo", "official"}, "": {""}}.get(student, {student})
    assert {(key[1], key[2], key[4], key[5]) for key in changed} == (
        {(name, teacher, shown, metric) for name in students} if shown else set()
    )
    for key in changed & set(less):
        assert less[key] == [*whole[key][:3], "", ""]


def test_without_results_there_is_no_number(made):
    frame = pd.read_csv(made([]))
    assert list(frame.columns) == COLUMNS
    assert len(frame) == 8
    assert frame[["mean", "std", "published"]].isna().all(axis=None)
    assert (frame["seeds"] == 0).all()


@settings(max_examples=20, deadline=None)
@given(values=st.lists(st.floats(0, 100), min_size=1, max_size=6))
def test_mean_and_std_are_those_of_the_sample(tmp_path_factory, values):
    folder = tmp_path_factory.mktemp("results")
    paths = write_results(folder, [("alone", "knn-10", i, {"top1": value}) for i, value in enumerate(values)])
    make_table(paths, None, folder / "table.csv", rows=ROWS[1:2], evaluations=["knn-10"])
    found = pd.read_csv(folder / "table.csv").iloc[0]
    assert found["mean"] == pytest.approx(np.mean(values), abs=6e-5)
    if len(values) == 1:
        assert np.isnan(found["std"])
    else:
        assert found["std"] == pytest.approx(np.std(values, ddof=1), abs=6e-5)


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
        b'{"model": "alone", "protocol": "knn-10", "seed": 0, "metrics": {"top1": true}}',
        b'{"model": "alone", "protocol": "knn-10", "seed": 0, "metrics": {"top1": NaN}}',
        b'{"model": "alone", "protocol": "knn-10", "seed": 0, "metrics": {"top1": Infinity}}',
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
        # What can be read has a digest that fits, so that it is refused for what it says.
        with contextlib.suppress(ValueError, TypeError):
            said = json.loads(content)
            content = json.dumps({**said, "digest": digest_json(said)}).encode()
        bad.write_bytes(content)
    with pytest.raises(BingoError) as caught:
        make_table([good, bad], None, tmp_path / "table.csv")
    assert str(caught.value).startswith(f"{bad}: ")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "table.csv").exists()


def test_special_characters_are_escaped_in_latex(texts):
    title = r"50% of a_b & c, #1 for $5 {x} ~y ^z \w"
    markdown, latex = texts(TABLE.replace("alone", "a_b"), title)
    expected = r"50\% of a\_b \& c, \#1 for \$5 \{x\} \textasciitilde{}y \textasciicircum{}z \textbackslash{}w"
    assert rf"\caption{{{expected}}}" in latex
    assert latex_rows(latex)[2][1] == r"a\_b"
    assert markdown.splitlines()[0] == f"# {title}"
    assert markdown_rows(markdown)[3][1] == "a_b"


@pytest.mark.parametrize("name", ["null", "nan", "na", "none", "001", "1e5", "true"])
@pytest.mark.parametrize("published", [None, PUBLISHED])
def test_a_network_may_have_any_name(name, published, made, texts):
    rows = [row(name, "bingo", name, name, name, name)]
    beside = published and published + f"bingo,{name},{name},knn-10,top1,49.5,{name}\n"
    table = made([(name, "knn-10", 0, {"top1": 50.0})], beside, rows=rows, evaluations=["knn-10"])
    found = markdown_rows(texts(table.read_text())[0])[-1]
    assert found == latex_rows(texts(table.read_text())[1])[-1]
    if published is None:
        assert found == ["bingo", name, name, name, "50.00", "1"]
    else:
        assert found == ["bingo", name, name, name, "knn-10", "top1", "49.5", "50.00", "1", "+0.50"]
        assert table.read_text().splitlines()[-1].endswith(f",50.0000,,1,49.5000,{name}")


def test_a_table_without_protocols_is_empty(texts, made):
    table = made([], evaluations=[]).read_text()
    assert table.splitlines() == [",".join(COLUMNS)]
    markdown, latex = texts(table, "Nothing yet")
    assert len(markdown_rows(markdown)) == 2
    assert r"\caption{Nothing yet}" in latex


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xfe",
        TABLE.replace("mean", "average").encode(),
        TABLE.replace("52.4000", "n/a").encode(),
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
        make_table([*paths, paths[0]], None, tmp_path / "table.csv")
    assert not (tmp_path / "table.csv").exists()


@pytest.mark.parametrize(("model", "protocol"), [("of another table", "knn-10"), ("bingo", "of-another-table")])
def test_a_result_of_another_table_is_refused_by_name(tmp_path, model, protocol):
    (path,) = write_results(tmp_path, [(model, protocol, 0, {"top1": 12.0})])
    with pytest.raises(BingoError, match=f"{path}: {model} by {protocol} is not in this table"):
        make_table([path], None, tmp_path / "table.csv")
    assert not (tmp_path / "table.csv").exists()


def test_a_result_whose_digits_changed_is_refused(tmp_path):
    (path,) = write_results(tmp_path, RESULTS[:1])
    path.write_text(path.read_text().replace("67.31", "76.31"))
    with pytest.raises(BingoError, match=f"{path}: .*does not match its digest"):
        make_table([path], None, tmp_path / "table.csv")
