"""Tables of results beside published numbers: every number has its file, and a missing file is an empty cell."""

import csv
import json
import statistics
from collections import defaultdict
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bingo.artifacts.provenance import digest_json
from bingo.errors import BingoError
from bingo.report.table import COLUMNS, Published, read_published, read_table

from .results import PUBLISHED, RESULTS, ROWS, latex_rows, make_table, make_text, markdown_rows, row, write_results

# Worked out by hand from `RESULTS` and `PUBLISHED`. 52, 52.4, 52.8 deviate by -0.4, 0, 0.4 from their mean, so their
# sample variance is 0.32 / 2; 76, 77, 78 by -1, 0, 1: 2 / 2; 61.3 and 61.9 by 0.3 each: 0.18 / 1; 54 and 59 by 2.5
# each: 12.5 / 1.
EXPECTED = Path(__file__).parent / "expected"
TABLE = (EXPECTED / "own.csv").read_text()
TITLES = {"own": "Small & large, 100 % of labels", "published": "Beside the paper's"}
HEADER = "method,student,teacher,protocol,metric,published,source"
LINE = 'bingo,resnet18,r50,linear,top1,61.4,"Authors, 2022"'


@pytest.fixture
def made(tmp_path):
    """Make a table of results, and of published numbers if there are any; return its path."""

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


@pytest.fixture
def rows(made):
    """Make a table beside these lines of published numbers; return its lines as dictionaries."""

    def make(lines, results=(), **shown):
        table = made(list(results), "\n".join([HEADER, *lines, ""]), **shown)
        return list(csv.DictReader(table.read_text().splitlines()))

    return make


def refused(path, call, *arguments):
    """Assert that a call names ``path`` and leaves no table."""
    with pytest.raises(BingoError, match=f"^{path}: ") as caught:
        call(*arguments)
    assert not (path.parent / "table.csv").exists()
    return str(caught.value)


@pytest.mark.parametrize(("name", "published"), [("own", None), ("published", PUBLISHED)])
def test_a_table_is_the_one_worked_out_by_hand(name, published, made, texts):
    table = made(RESULTS, published).read_text()
    assert table == (EXPECTED / f"{name}.csv").read_text()
    markdown, latex = texts(table, TITLES[name])
    assert markdown.startswith((EXPECTED / f"{name}.md").read_text())  # a footnote follows
    assert latex == (EXPECTED / f"{name}.tex").read_text()
    reordered = made(RESULTS[::-1], published).read_text()
    assert set(reordered.splitlines()) == set(table.splitlines())


def test_without_results_there_is_no_number(made, texts):
    frame = pd.read_csv(made([]))
    assert list(frame.columns) == COLUMNS
    assert len(frame) == 8
    assert frame[["mean", "std", "published"]].isna().all(axis=None)
    assert (frame["seeds"] == 0).all()
    empty = made([], evaluations=[]).read_text()
    assert empty.splitlines() == [",".join(COLUMNS)]
    assert len(markdown_rows(texts(empty)[0])) == 2


RESULT = {"model": "alone", "protocol": "knn-10", "seed": 0, "metrics": {"top1": 50.0}}


@pytest.mark.parametrize(
    "content",
    [
        None,
        b"",
        b"\xff\xfe",
        b'{"model": "alone", "protocol": "knn-10", "metr',
        [1, 2],
        3,
        *({key: value for key, value in RESULT.items() if key != gone} for gone in RESULT),
        *({**RESULT, "metrics": {"top1": value}} for value in ("50", None, True, float("nan"), float("inf"))),
        {**RESULT, "metrics": [50.0]},
        {**RESULT, "seed": "0"},
        {**RESULT, "model": ["alone"]},
    ],
    ids=str,
)
def test_damaged_results_are_refused_by_name(tmp_path, content):
    good, bad = write_results(tmp_path, RESULTS[:2])
    bad.unlink()
    if isinstance(content, dict):
        # Its digest fits, so that it is refused for its content.
        content = {**content, "digest": digest_json(content)}
    if content is not None:
        bad.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    refused(bad, make_table, [good, bad], None, bad.parent / "table.csv")


@pytest.mark.parametrize(("model", "protocol"), [("of another table", "knn-10"), ("bingo", "of-another-table")])
def test_results_of_another_table_second_ones_and_changed_digits_are_refused(tmp_path, model, protocol):
    (path,) = write_results(tmp_path, [(model, protocol, 0, {"top1": 12.0})])
    assert f"{model} by {protocol}" in refused(path, make_table, [path], None, path.parent / "table.csv")
    first, *_ = write_results(tmp_path, RESULTS)
    assert "r50 by linear-moco" in refused(first, make_table, [first, first], None, first.parent / "table.csv")
    first.write_text(first.read_text().replace("67.31", "76.31"))
    refused(first, make_table, [first], None, first.parent / "table.csv")


@pytest.mark.parametrize(
    "content",
    [
        None,
        b"",
        b"\xff\xfe",
        TABLE.replace("mean", "average").encode(),
        TABLE.replace("52.4000", "n/a").encode(),
        TABLE.replace(",3,", ",x,").encode(),
        TABLE.replace("moco,alone,", "moco,alone,,,,,,").encode(),
    ],
)
def test_damaged_tables_are_refused_by_name(tmp_path, content):
    path = tmp_path / "read.csv"
    if content is not None:
        path.write_bytes(content)
    refused(path, read_table, path)


def test_special_characters_are_escaped_in_latex(texts):
    title = r"50% of a_b & c, #1 for $5 {x} ~y ^z \w"
    markdown, latex = texts(TABLE.replace("alone", "a_b"), title)
    expected = r"50\% of a\_b \& c, \#1 for \$5 \{x\} \textasciitilde{}y \textasciicircum{}z \textbackslash{}w"
    assert rf"\caption{{{expected}}}" in latex
    assert latex_rows(latex)[2][1] == r"a\_b"
    assert markdown.splitlines()[0] == f"# {title}"
    assert markdown_rows(markdown)[3][1] == "a_b"


@pytest.mark.parametrize("name", ["null", "nan", "none", "001", "1e5", "true"])
def test_a_network_may_have_any_name(name, made, texts):
    shown = {"rows": [row(name, "bingo", name, name, name, name)], "evaluations": ["knn-10"]}
    result = [(name, "knn-10", 0, {"top1": 50.0})]
    own = texts(made(result, **shown).read_text())
    assert markdown_rows(own[0])[-1] == latex_rows(own[1])[-1] == ["bingo", name, name, name, "50.00", "1"]
    table = made(result, f"{PUBLISHED}bingo,{name},{name},knn-10,top1,49.5,{name}\n", **shown).read_text()
    beside = ["bingo", name, name, name, "knn-10", "top1", "49.5", "50.00", "1", "+0.50"]
    assert markdown_rows(texts(table)[0])[-1] == latex_rows(texts(table)[1])[-1] == beside
    assert table.splitlines()[-1].endswith(f",50.0000,,1,49.5000,{name}")


def written(tmp_path, *lines):
    path = tmp_path / "published.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


def test_published_numbers_are_read_by_the_names_of_their_columns(tmp_path):
    expected = Published("bingo", "resnet18", "r50", "linear", "top1", 61.4, "Authors, 2022")
    assert read_published(written(tmp_path, HEADER, LINE)) == [expected]
    header = "note,source,published,metric,protocol,teacher,student,method"
    reordered = written(tmp_path, header, '"a, b","Authors, 2022",61.4,top1,linear,r50,resnet18,bingo')
    assert read_published(reordered) == [expected]


@pytest.mark.parametrize("column", HEADER.split(","))
def test_a_missing_column_of_published_numbers_is_refused_by_name(tmp_path, column):
    path = written(tmp_path, HEADER.replace(column, f"{column}s"), LINE)
    assert column in refused(path, read_published, path)


@pytest.mark.parametrize("number", ["", "n/a", "nan", "inf", "61.4 %"])
def test_a_published_number_that_is_none_is_refused_by_name(tmp_path, number):
    path = written(tmp_path, HEADER, LINE.replace("61.4", number))
    refused(path, make_table, [], path, tmp_path / "table.csv")


@pytest.mark.parametrize(
    "lines",
    [
        [],
        [HEADER, LINE.replace('"', "")],  # so its source is two cells
        [HEADER, "bingo,resnet18,r50,linear,top1"],
        [HEADER, 'bingo,resnet18,r50,linear,top1,61.4,"Authors'],
        [HEADER, LINE, LINE.replace("61.4", "61.5").replace("2022", "2021")],  # two numbers for the same
        # A teacher is known by its name, so one of them would be lost, and the other perhaps another network's.
        [HEADER, "moco,,r50,linear,top1,67.4,Authors", "swav,,r50,linear,top1,75.3,Others"],
    ],
)
def test_damaged_and_contradictory_published_numbers_are_refused_by_name(tmp_path, lines):
    path = written(tmp_path, *lines)
    refused(path, read_published, path)


def test_a_linear_probe_on_fresh_views_stands_beside_the_published_one_and_no_other_protocol_does(rows):
    shown = ["linear-cached", "linear-bingo", "cifar10-linear", "knn-10"]
    found = {row["protocol"]: row["published"] for row in rows([LINE], rows=ROWS[2:3], evaluations=shown)}
    assert found == {"linear-cached": "", "linear-bingo": "61.4000", "cifar10-linear": "", "knn-10": ""}


@pytest.mark.parametrize(
    ("teacher", "shown", "expected"),
    [
        ("r50", ROWS[0], ["75.3000"]),
        ("r50", ROWS[1], [""]),  # a table that shows no teachers shows no published ones
        ("r152", ROWS[0], ["75.3000", ""]),
    ],
)
def test_a_teacher_is_known_by_its_name_whatever_made_it(rows, teacher, shown, expected):
    line = f"swav,,{teacher},linear,top1,75.3,Others"
    found = rows([line], rows=[shown], evaluations=["linear-moco"])
    assert [row["published"] for row in found] == expected


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
def test_a_published_number_is_quoted_with_all_its_digits(made, texts, number):
    table = made(RESULTS, f"{HEADER}\n{LINE.replace('61.4', number)}\n").read_text()
    header, _, *body = markdown_rows(texts(table)[0])
    shown = {line[header.index("published")] for line in body} - {""}
    assert {float(cell) for cell in shown} == {float(number)}


# Whatever is measured and published, a table holds all of it and nothing else.
MODELS = {shown.model: shown for shown in ROWS}
# What a publication calls the number of each.
PROTOCOLS = {"linear-moco": "linear", "linear-seed": "linear", "knn-10": "knn-10", "cifar10-linear": "cifar10-linear"}
METRICS = ["top1", "top5"]
ANY_RESULTS = st.dictionaries(
    st.tuples(st.sampled_from([*MODELS]), st.sampled_from([*PROTOCOLS]), st.integers(0, 3)),
    st.dictionaries(st.sampled_from(METRICS), st.floats(0, 100), min_size=1),
    max_size=12,
)
ANY_PUBLISHED = st.dictionaries(
    st.tuples(
        st.sampled_from(["moco", "bingo", "supervised"]),
        st.sampled_from(["", "resnet18", "resnet34"]),
        st.sampled_from(["", "r50", "r152"]),
        st.sampled_from([*dict.fromkeys(PROTOCOLS.values()), "semi-1"]),
        st.sampled_from(METRICS),
    ).filter(lambda names: names[1] or (names[0] == "moco" and names[2])),  # a teacher has one method
    st.integers(0, 1000).map(lambda tenths: tenths / 10),
    max_size=10,
)


def network(method, student, teacher):
    """A teacher is known by its name alone: an imported one does not say by which method it was trained."""
    return (method if student else "", student, teacher)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(ANY_RESULTS, ANY_PUBLISHED, st.lists(st.sampled_from([*PROTOCOLS]), unique=True, min_size=1))
def test_every_number_has_a_file_and_every_file_its_numbers(tmp_path_factory, results, published, shown):
    folder = tmp_path_factory.mktemp("table")
    results = {key: metrics for key, metrics in results.items() if key[1] in shown}
    paths = write_results(folder, [(*key, metrics) for key, metrics in results.items()])
    lines = [",".join(map(str, [*key, value, f"source {i}"])) for i, (key, value) in enumerate(published.items())]
    sources = {f"source {i}": (key, value) for i, (key, value) in enumerate(published.items())}
    values = defaultdict(list)
    for (model, protocol, _), metrics in results.items():
        for metric, value in metrics.items():
            values[model, protocol, metric].append(value)

    make_table(paths, written(folder, HEADER, *lines), folder / "table.csv", evaluations=shown)
    table = list(csv.DictReader((folder / "table.csv").read_text().splitlines()))
    quoted = set()
    for line in table:
        own = MODELS.get(line["student"] or line["teacher"])
        if own is not None and (line["student"], line["bags"], line["method"]) != (own.student, own.bags, own.method):
            own = None
        found = values.pop((own.model, line["protocol"], line["metric"]), []) if own else []
        assert line["seeds"] == str(len(found))
        assert (line["mean"] == "") == (not found)
        assert (line["std"] == "") == (len(found) < 2)
        if found:
            assert float(line["mean"]) == pytest.approx(sum(found) / len(found), abs=6e-5)
        if len(found) > 1:
            assert float(line["std"]) == pytest.approx(statistics.stdev(found), abs=6e-5)
        assert (line["published"] == "") == (line["source"] == "")
        if line["source"]:
            (*whose, protocol, metric), value = sources[line["source"]]
            student = own.architecture if own else line["student"]
            assert network(*whose) == network(line["method"], student, line["teacher"])
            assert (protocol, metric) == (PROTOCOLS.get(line["protocol"], line["protocol"]), line["metric"])
            assert own or line["protocol"] == protocol, "another network keeps the protocol it was published by"
            assert float(line["published"]) == value
            quoted.add(line["source"])
        assert own or line["source"], "a row is a network of the study, or one that somebody has published"
    assert not any(values.values()), "every measured number is in the table"
    asked = {PROTOCOLS[evaluation] for evaluation in shown}
    assert quoted == {name for name in sources if sources[name][0][3] in asked}
    require_texts(folder, table)


def require_texts(folder, table):
    """What people read are the numbers of the CSV, rounded; the difference is that of two of them."""
    markdown, latex = folder / "t.md", folder / "t.tex"
    make_text("T", folder / "table.csv", markdown, latex)
    header, _, *body = markdown_rows(markdown.read_text())
    assert latex_rows(latex.read_text()) == [header, *body]
    read = [dict(zip(header, line, strict=True)) for line in body]
    if any(line["published"] for line in table):
        for shown, line in zip(read, table, strict=True):
            assert shown["seeds"] == line["seeds"].replace("0", "")
            require_cell(shown["ours"], line["mean"], line["std"])
            assert shown["published"] == (f"{float(line['published']):.1f}" if line["published"] else "")
            both = line["mean"] and line["published"]
            require_cell(shown["difference"], both and float(line["mean"]) - float(line["published"]), "")
        return
    names = ("method", "student", "teacher", "bags")
    numbers = {(*(line[name] for name in names), f"{line['protocol']} {line['metric']}"): line for line in table}
    for shown in read:
        for column in [column for column in header if " top" in column]:
            line = numbers.get((*(shown[name] for name in names), column), {"mean": "", "std": ""})
            require_cell(shown[column], line["mean"], line["std"])


def require_cell(cell, mean, std):
    parts = cell.split(" ± ") if cell else []
    expected = [float(value) for value in (mean, std) if value != ""]
    assert [float(part) for part in parts] == pytest.approx(expected, abs=5.1e-3)
