"""Whatever is measured and published: a table holds all of it, and nothing else."""

import csv
import io
import statistics
from collections import defaultdict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from .results import ROWS, latex_rows, make_table, make_text, markdown_rows, write_results

MODELS = {row.model: row for row in ROWS}
# What a publication calls the number of each.
PROTOCOLS = {"linear-moco": "linear", "linear-seed": "linear", "knn-10": "knn-10", "cifar10-linear": "cifar10-linear"}
METRICS = ["top1", "top5"]
PERCENT = st.floats(0, 100)
RESULTS = st.dictionaries(
    st.tuples(st.sampled_from([row.model for row in ROWS]), st.sampled_from([*PROTOCOLS]), st.integers(0, 3)),
    st.dictionaries(st.sampled_from(METRICS), PERCENT, min_size=1),
    max_size=12,
)
PUBLISHED = st.dictionaries(
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
SHOWN = st.lists(st.sampled_from([*PROTOCOLS]), unique=True, min_size=1)


def written(rows):
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def network(method, student, teacher):
    """A teacher is known by its name alone: who imports one does not say by which method it was trained."""
    return (method if student else "", student, teacher)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(RESULTS, PUBLISHED, SHOWN)
def test_every_number_has_a_file_and_every_file_its_numbers(tmp_path_factory, results, published, shown):
    folder = tmp_path_factory.mktemp("table")
    results = {key: metrics for key, metrics in results.items() if key[1] in shown}
    paths = write_results(folder, [(*key, metrics) for key, metrics in results.items()])
    names = ["method", "student", "teacher", "protocol", "metric"]
    lines = [[*key, value, f"source {i}"] for i, (key, value) in enumerate(published.items())]
    (folder / "published.csv").write_text(written([[*names, "published", "source"], *lines]))
    sources = {f"source {i}": (key, value) for i, (key, value) in enumerate(published.items())}
    values = defaultdict(list)
    for (model, protocol, _), metrics in results.items():
        for metric, value in metrics.items():
            values[model, protocol, metric].append(value)

    make_table(paths, folder / "published.csv", folder / "table.csv", evaluations=shown)
    rows = list(csv.DictReader((folder / "table.csv").read_text().splitlines()))
    quoted = set()
    for row in rows:
        model = row["student"] or row["teacher"]
        own = MODELS.get(model) if not row["student"] or row["student"] in MODELS else None
        own = own if own is not None and row["bags"] == own.bags and row["method"] == own.method else None
        found = values.pop((model, row["protocol"], row["metric"]), []) if own else []
        assert row["seeds"] == str(len(found))
        assert (row["mean"] == "") == (not found)
        assert (row["std"] == "") == (len(found) < 2)
        if found:
            assert float(row["mean"]) == pytest.approx(sum(found) / len(found), abs=6e-5)
        if len(found) > 1:
            assert float(row["std"]) == pytest.approx(statistics.stdev(found), abs=6e-5)
        assert (row["published"] == "") == (row["source"] == "")
        if row["source"]:
            (*whose, protocol, metric), value = sources[row["source"]]
            student = own.architecture if own else row["student"]
            assert network(*whose) == network(row["method"], student, row["teacher"])
            assert (protocol, metric) == (PROTOCOLS.get(row["protocol"], row["protocol"]), row["metric"])
            assert own or row["protocol"] == protocol, "a number of another network keeps the name it was published by"
            assert float(row["published"]) == value
            quoted.add(row["source"])
        assert own or row["source"], "a row is a network of the study, or one that somebody has published"
    assert not any(values.values()), "every measured number is in the table"
    asked = {PROTOCOLS[evaluation] for evaluation in shown}
    assert quoted == {name for name in sources if sources[name][0][3] in asked}, (
        "every published number by these protocols is in the table"
    )
    _require_texts(folder, rows)


def _require_texts(folder, rows):
    """What people read are the numbers of the CSV, rounded; the difference is that of two of them."""
    markdown, latex = folder / "t.md", folder / "t.tex"
    make_text("T", folder / "table.csv", markdown, latex)
    header, _, *body = markdown_rows(markdown.read_text())
    assert latex_rows(latex.read_text()) == [header, *body]
    read = [dict(zip(header, line, strict=True)) for line in body]
    if any(row["published"] for row in rows):
        assert len(read) == len(rows)
        for line, row in zip(read, rows, strict=True):
            assert line["seeds"] == row["seeds"].replace("0", "")
            _require_cell(line["ours"], row["mean"], row["std"])
            assert line["published"] == (f"{float(row['published']):.1f}" if row["published"] else "")
            both = row["mean"] and row["published"]
            _require_cell(line["difference"], both and float(row["mean"]) - float(row["published"]), "")
    else:
        for line in read:
            cells = {name: cell for name, cell in line.items() if " top" in name}
            for name, cell in cells.items():
                row = next((row for row in rows if _is(row, line, name)), None)
                _require_cell(cell, row and row["mean"], row and row["std"])


def _is(row, line, column):
    same = all(row[key] == line[key] for key in ("method", "student", "teacher", "bags"))
    return same and f"{row['protocol']} {row['metric']}" == column


def _require_cell(cell, mean, std):
    parts = cell.split(" ± ") if cell else []
    expected = [float(value) for value in (mean, std) if value not in ("", None)]
    assert [float(part) for part in parts] == pytest.approx(expected, abs=5.1e-3)
