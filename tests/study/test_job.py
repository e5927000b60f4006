"""A job: which of its fields are settings, and what becomes of one that is read from a command line."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bingo.errors import BingoError
from bingo.study.job import Role
from bingo.study.jobs import BagsJob, StudentJob
from bingo.study.report_jobs import ReportJob, SheetsJob, TableJob, TableTextJob
from bingo.study.stages import JOBS

FILES = {"table": Path("t.csv"), "markdown": Path("t.md"), "latex": Path("t.tex")}
SHEETS = {"listing": Path("l.h5"), "bags": Path("a b.h5")}


def versioned(kind, **keys):
    return json.dumps({"version": kind.STAGE_VERSION, **keys})


TEXT = versioned(TableTextJob, title="A title")


def test_settings_are_the_json_of_a_job_itself_or_in_a_file(tmp_path):
    expected = TableTextJob(title="A title", **FILES)
    (tmp_path / "@settings.json").write_text(TEXT)
    for given_settings in (TEXT, f"@{tmp_path}/@settings.json", expected.identity):
        assert TableTextJob.read(given_settings, FILES) == expected
    assert json.loads(expected.identity) == json.loads(TEXT)


@pytest.mark.parametrize(
    ("kind", "text", "named"),
    [
        (TableTextJob, "", ""),
        (TableTextJob, "{'title': 1}", ""),
        (TableTextJob, "[]", "table_text"),
        (TableTextJob, '{"title": ""}', "table_text"),
        (TableTextJob, '{"version": 1, "title": ""}', "version 2"),
        (TableTextJob, '{"version": "2", "title": ""}', "version 2"),
        (TableTextJob, versioned(TableTextJob), "title: "),
        (TableTextJob, versioned(TableTextJob, titel=""), "'titel'"),
        (TableJob, versioned(TableJob, rows=[{}], evaluations=[]), "rows.0.model: "),
        (BagsJob, versioned(BagsJob, bags={"criterion": "label", "size": 3}), "bags.label"),
        (BagsJob, versioned(BagsJob, bags={"criterion": "knn5"}), "bags: "),
        (TableTextJob, "@nowhere.json", "nowhere.json"),
        (TableTextJob, "@.", ""),
    ],
)
def test_a_fault_in_settings_is_one_line_that_names_the_key(kind, text, named, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    files = {"listing": Path("l.h5"), "output": Path("o")} if kind is BagsJob else {"output": Path("o")}
    with pytest.raises(BingoError, match=r"^--settings: ") as caught:
        kind.read(text, FILES if kind is TableTextJob else files)
    assert named in str(caught.value)


@pytest.mark.parametrize("files", [{**SHEETS, "pages": {"bset": Path("x.png")}}, SHEETS])
def test_a_fault_in_a_file_names_its_option(files):
    with pytest.raises(BingoError, match=r"^--pages: "):
        SheetsJob.read(versioned(SheetsJob), files)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    st.text(max_size=20)
    | st.recursive(st.none() | st.integers() | st.text(), st.lists).map(json.dumps)
    | st.dictionaries(st.sampled_from(["title", "table", "latex", "x"]), st.none() | st.integers() | st.text()).map(
        lambda keys: versioned(TableTextJob, **keys)
    )
)
def test_whatever_is_given_the_answer_is_a_job_or_one_line(text):
    try:
        answer = TableTextJob.read(text, FILES)
    except BingoError as error:
        answer = str(error)
    assert isinstance(answer, TableTextJob) or (answer.startswith("--settings: ") and "\n" not in answer)


def test_file_names_may_be_of_any_bytes():
    odd = Path("a b/'q' = \udce9.csv")  # of bytes that are no text
    assert TableTextJob.read(TEXT, {**FILES, "table": odd}).table == odd


def test_inputs_are_the_files_that_a_job_reads():
    student = {"method": "moco", "backbone": {"architecture": "resnet10"}}
    text = versioned(StudentJob, preprocessing={"size": 28}, student=student, seed=0)
    files = {"name": "s", "listing": Path("l.h5"), "output": Path("o"), "events": Path("e")}
    assert StudentJob.read(text, files).inputs == {"listing": "l.h5"}
    more = {"teacher": Path("t"), "bags": Path("b"), "targets": [Path("x"), Path("y")]}
    expected = {"listing": "l.h5", "teacher": "t", "bags": "b", "targets": ["x", "y"]}
    assert StudentJob.read(text, {**files, **more}).inputs == expected
    shown = {"sheet": {"knn/best": Path("a.png"), "knn/worst": Path("b.png")}, "benchmark": {"bags": [Path("b.tsv")]}}
    study = {"study": "s", "data": {"source": "demo"}, "teachers": {"t": {"checkpoint": "x.pt"}}}
    report = ReportJob.read(versioned(ReportJob, study=study, left_out=""), {"output": Path("r.html"), **shown})
    assert report.inputs == {"sheet": ["a.png", "b.png"]}  # what jobs cost may be missing


def test_flags_repeat_an_option_for_each_of_its_files():
    job = SheetsJob(**SHEETS, pages={"best": Path("b.png"), "worst": Path("w.png")})
    assert job.flags() == "--listing l.h5 --bags 'a b.h5' --pages best=b.png --pages worst=w.png"
    assert job.flags("bags") == "--bags 'a b.h5'"
    table = TableJob(rows=[], evaluations=[], results=[Path("a"), Path("b")], output=Path("t.csv"))
    assert table.flags("results", "published") == "--results a --results b"


@pytest.mark.parametrize("kind", JOBS.values(), ids=lambda kind: kind.STAGE)
def test_every_job_writes_something_and_its_files_are_no_settings(kind):
    assert Role.OUTPUT in kind.roles().values()
    paths = {name for name, field in kind.model_fields.items() if "Path" in str(field.annotation)}
    assert paths <= kind.roles().keys()
