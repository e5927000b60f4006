"""`bingo stage NAME`: the command of every job's class."""

import inspect
import os
import shlex
from importlib import import_module
from pathlib import Path

import pytest
import torch
import typer

from bingo.cli import stage
from bingo.errors import BingoError
from bingo.study.report_jobs import ReportJob, SheetsJob
from bingo.study.stages import JOBS
from tests.study.every_job import STUDY, every_job, make_data

SHEETS = SheetsJob(listing=Path("l.h5"), bags=Path("b.h5"), pages={"best": Path("a b/x=y.png"), "worst": Path("'.png")})
COMMANDS = [kind for kind in JOBS.values() if kind.STAGE != "export"]  # which is `bingo export`


@pytest.fixture
def read(monkeypatch):
    """Return the job that a command line is read as, and what else its stage is given."""
    given = []
    monkeypatch.setattr(stage, "start", lambda _: None)
    monkeypatch.setattr(stage, "run", lambda *arguments: given.append(arguments))

    def command(*words):
        given.clear()
        stage.app([str(word) for word in words], standalone_mode=False)
        return given[0]

    return command


@pytest.fixture(scope="module")
def jobs(tmp_path_factory):
    """Every job of a study, and one that no study makes."""
    folder = tmp_path_factory.mktemp("data")
    make_data(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        return [*every_job(STUDY).values(), SHEETS]


def has_settings(kind):
    return bool(kind.model_fields.keys() - kind.roles())


def as_command(job):
    return [job.STAGE, *shlex.split(job.flags()), *(["--settings", job.identity] if has_settings(type(job)) else [])]


@pytest.mark.parametrize("kind", COMMANDS, ids=lambda kind: kind.STAGE)
def test_each_file_and_label_of_a_job_is_an_option_and_its_settings_are_one(kind):
    command = typer.main.get_command(stage.app).commands[kind.STAGE]
    options = {option: parameter for parameter in command.params for option in parameter.opts}
    files = {f"--{name.replace('_', '-')}": name for name in kind.roles()}
    machine = {"--log", "--threads"} | ({"--workers"} if kind.DEVICE != "none" else set())
    assert options.keys() == files.keys() | machine | ({"--settings"} if has_settings(kind) else set())
    required = {option for option, name in files.items() if kind.model_fields[name].is_required()}
    required |= {"--settings"} if has_settings(kind) else set()
    assert {option for option, parameter in options.items() if parameter.required} == required
    assert all(options[option].help for option in files)


def test_stages_are_commands_but_for_the_one_that_users_call():
    assert list(typer.main.get_command(stage.app).commands) == [kind.STAGE for kind in COMMANDS]


def test_settings_and_flags_of_a_job_read_back_as_the_same_job(read, jobs):
    assert {type(job) for job in jobs} >= {kind for kind in JOBS.values() if hasattr(kind, "of")}
    for job in jobs:
        found, threads, workers = read(*as_command(job))
        assert type(found) is type(job)
        assert found.identity == job.identity
        assert found.model_dump(exclude=job.irrelevant()) == job.model_dump(exclude=job.irrelevant())
        assert (threads, workers) == (1, 0)


def test_threads_and_workers_reach_the_stage(read, jobs):
    for job in jobs:
        words = as_command(job) + ["--threads", "3"] + ([] if job.DEVICE == "none" else ["--workers", "2"])
        assert read(*words)[1:] == (3, 0 if job.DEVICE == "none" else 2)


@pytest.fixture
def report(read, jobs):
    """Read the command line of a report with these words."""
    settings = next(job.identity for job in jobs if isinstance(job, ReportJob))
    return lambda *words: read("report", "--output", "r.html", "--settings", settings, *words)[0]


def test_named_files_are_split_at_the_first_equals_sign(report):
    words = ["--benchmark", "student=a.tsv", "--benchmark", "student=b.tsv", "--sheet", "knn-5/best=folder/x=y.png"]
    job = report(*words)
    assert job.benchmark == {"student": [Path("a.tsv"), Path("b.tsv")]}
    assert job.sheet == {"knn-5/best": Path("folder/x=y.png")}
    assert (report().benchmark, report().sheet) == ({}, {})


@pytest.mark.parametrize("option", ["--sheet", "--benchmark"])
@pytest.mark.parametrize("pair", ["", "=", "a.png", "=a.png", "name="])
def test_a_file_without_a_name_or_a_name_without_a_file_is_refused(report, option, pair):
    with pytest.raises(BingoError) as caught:
        report(option, "a=b", option, pair)
    assert str(caught.value) == f"{option}: is NAME=FILE, found {pair}".strip()


def test_a_name_that_stands_for_one_file_is_refused_the_second_time(report):
    assert report("--sheet", "best=a.png", "--sheet", "worst=a.png").sheet.keys() == {"best", "worst"}
    with pytest.raises(BingoError, match=r"^--sheet: best occurs twice; name each once$"):
        report("--sheet", "best=a.png", "--sheet", "worst=b.png", "--sheet", "best=c.png")


@pytest.mark.parametrize("kind", JOBS.values(), ids=lambda kind: kind.STAGE)
def test_every_stage_is_a_module_that_runs_its_job(kind):
    function = import_module(f"bingo.stages.{kind.STAGE}").run
    first, *others = inspect.signature(function).parameters.values()
    assert first.annotation is kind
    assert [other.name for other in others] == (["threads"] if kind.DEVICE == "none" else ["device", "workers"])


def test_threads_are_those_of_torch_and_of_libraries_that_read_the_environment(monkeypatch, jobs):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    before = torch.get_num_threads()
    seen = []
    for job in jobs:
        if job.STAGE in ("bags", "map_figure"):  # one without networks, one with
            module = import_module(f"bingo.stages.{job.STAGE}")
            monkeypatch.setattr(module, "run", lambda *given: seen.append((os.environ["OMP_NUM_THREADS"], given[-1])))
    try:
        for name in ("bags", "map_figure"):
            stage.run(next(job for job in jobs if name == job.STAGE), 3, 2)
        assert torch.get_num_threads() == 3
        assert seen == [("3", 3), ("3", 2)]
    finally:
        torch.set_num_threads(before)
