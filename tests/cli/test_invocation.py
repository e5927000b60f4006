"""What every command shares: settings, named files, the log, threads, and the end with Snakemake."""

import json
import logging
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bingo.errors import BingoError
from bingo.cli.invocation import named_files, read_job, start, unique_files, use_threads
from bingo.study.jobs import BagsJob, TableJob, TextJob

TEXT = json.dumps({"version": 1, "title": "A title"})


@pytest.fixture
def begin(monkeypatch):
    """Start as a command does, in a process without the handlers that pytest has installed."""
    root = logging.getLogger()
    level = root.level

    def run(log):
        monkeypatch.setattr(root, "handlers", [])
        start(log)

    yield run
    for handler in root.handlers:
        handler.close()
    root.setLevel(level)


def test_settings_are_the_json_of_a_job_itself_or_in_a_file(tmp_path):
    expected = TextJob(version=1, title="A title")
    (tmp_path / "@settings.json").write_text(TEXT)
    assert read_job(TextJob, TEXT) == expected
    assert read_job(TextJob, f"@{tmp_path}/@settings.json") == expected
    assert read_job(TextJob, expected.model_dump_json()) == expected


@pytest.mark.parametrize(
    ("kind", "given", "message"),
    [
        (TextJob, "", "--settings: Invalid JSON"),
        (TextJob, "{'title': 1}", "--settings: Invalid JSON"),
        (TextJob, "[]", "--settings: Input should be an object"),
        (TextJob, '{"version": 1}', "--settings: title: Field required"),
        (TextJob, '{"version": 1, "titel": ""}', "--settings: unknown key 'titel'; did you mean 'title'?"),
        (TextJob, '{"version": "1", "title": ""}', "--settings: version: Input should be a valid integer"),
        (TableJob, '{"version": 1, "rows": [{}], "evaluations": []}', "--settings: rows.0.model: Field required"),
        (BagsJob, '{"version": 1, "bags": {"criterion": "label", "size": 3}}', "--settings: bags.label: unknown key"),
        (BagsJob, '{"version": 1, "bags": {"criterion": "knn5"}}', "--settings: bags: Input tag 'knn5' found using"),
        (TextJob, "@nowhere.json", "--settings: nowhere.json cannot be read ("),
        (TextJob, "@", "--settings:  cannot be read ("),
        (TextJob, "@.", "--settings: . cannot be read ("),
    ],
)
def test_a_fault_in_settings_is_one_line_that_names_the_key(kind, given, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BingoError) as caught:
        read_job(kind, given)
    assert str(caught.value).startswith(" ".join(message.split()))
    assert "\n" not in str(caught.value)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.text(max_size=20) | st.recursive(st.none() | st.integers() | st.text(), st.lists).map(json.dumps))
def test_whatever_is_given_the_answer_is_a_job_or_one_line(text):
    try:
        answer = read_job(TextJob, text)
    except BingoError as error:
        answer = str(error)
    assert isinstance(answer, TextJob) or (answer.startswith("--settings: ") and "\n" not in answer)


def test_named_files_are_split_at_the_first_equals_sign():
    pairs = ["student=a.tsv", "student=b.tsv", "knn-5/best=folder/x=y.png"]
    assert named_files("--sheet", pairs) == [
        ("student", Path("a.tsv")),
        ("student", Path("b.tsv")),
        ("knn-5/best", Path("folder/x=y.png")),
    ]
    assert named_files("--sheet", []) == []


@pytest.mark.parametrize("pair", ["", "=", "a.png", "=a.png", "name="])
def test_a_file_without_a_name_or_a_name_without_a_file_is_refused(pair):
    with pytest.raises(BingoError) as caught:
        named_files("--sheet", ["a=b", pair])
    assert str(caught.value) == f"--sheet: is NAME=FILE, found {pair}".strip()


def test_a_name_that_stands_for_one_file_is_refused_the_second_time():
    assert unique_files("--page", ["best=a.png", "worst=a.png"]) == {"best": Path("a.png"), "worst": Path("a.png")}
    with pytest.raises(BingoError, match=r"^--page: best occurs twice; name each once$"):
        unique_files("--page", ["best=a.png", "worst=b.png", "best=c.png"])


def test_a_log_starts_anew_and_only_warnings_reach_stderr_beside_it(begin, tmp_path, capsys):
    path = tmp_path / "logs" / "deep" / "run.log"
    path.parent.mkdir(parents=True)
    path.write_text("of an earlier run\n")
    begin(path)
    logging.getLogger("bingo").info("half way")
    logging.getLogger("bingo").warning("careful")
    lines = [line.split(" ", 2)[2] for line in path.read_text().splitlines()]
    assert lines == ["half way", "careful"]
    assert capsys.readouterr().err.splitlines() == ["bingo: careful"]


@pytest.mark.parametrize("name", ["file/run.log", "folder"])
def test_a_log_that_cannot_be_written_is_refused(begin, tmp_path, name):
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    with pytest.raises(BingoError) as caught:
        begin(tmp_path / name)
    assert str(caught.value).startswith(f"--log: {tmp_path / name} cannot be written (")


def test_threads_are_those_of_torch_and_of_libraries_that_read_the_environment(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    before = torch.get_num_threads()
    try:
        use_threads(3)
        assert torch.get_num_threads() == 3
        assert os.environ["OMP_NUM_THREADS"] == "3"
    finally:
        torch.set_num_threads(before)


def test_a_command_ends_with_the_snakemake_that_started_it():
    parent = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    code = "import time; from bingo.cli.invocation import start; start(None); print('started', flush=True); time.sleep(60)"
    environment = {**os.environ, "BINGO_PARENT": f"{os.getpid()} {parent.pid}"}
    child = subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, text=True)
    try:
        assert child.stdout.readline() == "started\n"
        assert child.poll() is None
        parent.kill()
        parent.wait()
        child.wait(timeout=30)
        assert child.returncode == -signal.SIGTERM
    finally:
        parent.kill()
        child.kill()
        child.communicate()
