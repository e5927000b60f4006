"""`bingo stage NAME`: the command of every job's class."""

import inspect
import os
from importlib import import_module
from pathlib import Path

import pytest
import torch
import typer

from bingo.cli import stage
from bingo.errors import BingoError
from bingo.study.report_jobs import SheetsJob
from bingo.study.stages import JOBS

from .conftest import as_command, has_settings

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


@pytest.fixture
def report(jobs):
    """A report with files that have names."""
    benchmark = {"student": [Path("a.tsv"), Path("b.tsv")]}
    return jobs["report"].model_copy(update={"benchmark": benchmark, "sheet": {"knn-5/best": Path("folder/x=y.png")}})


@pytest.mark.parametrize("kind", COMMANDS, ids=lambda kind: kind.STAGE)
def test_each_file_and_label_of_a_job_is_an_option_and_its_settings_are_one(kind):
    command = typer.main.get_command(stage.app).commands[kind.STAGE]
    options = {option: parameter for parameter in command.params for option in parameter.opts}
    files = {f"--{name.replace('_', '-')}": name for name in kind.roles()}
    machine = {"--log", "--threads"} | ({"--workers"} if kind.DEVICE != "none" else set())
    settings = {"--settings"} if has_settings(kind) else set()
    assert options.keys() == files.keys() | machine | settings
    required = {option for option, name in files.items() if kind.model_fields[name].is_required()} | settings
    assert {option for option, parameter in options.items() if parameter.required} == required
    assert all(options[option].help for option in files)


def test_settings_and_flags_of_a_job_read_back_as_the_same_job(read, jobs, report):
    two = jobs["student"].model_copy(update={"targets": [Path("b.h5"), Path("a.h5")]})
    every = [*jobs.values(), SHEETS, two, report]
    assert {type(job) for job in every} == set(COMMANDS)
    for job in every:
        words = as_command(job) + ["--threads", "3"] + ([] if job.DEVICE == "none" else ["--workers", "2"])
        found, threads, workers = read(*words)
        assert type(found) is type(job)
        assert found.identity == job.identity
        assert found.model_dump(exclude=job.irrelevant()) == job.model_dump(exclude=job.irrelevant())
        assert (threads, workers) == (3, 0 if job.DEVICE == "none" else 2)


@pytest.mark.parametrize("option", ["--sheet", "--benchmark"])
@pytest.mark.parametrize("pair", ["", "=", "a.png", "=a.png", "name="])
def test_a_file_without_a_name_or_a_name_without_a_file_is_refused(read, report, option, pair):
    with pytest.raises(BingoError, match=f"^{option}: "):
        read(*as_command(report), option, "a=b", option, pair)


def test_a_name_that_stands_for_one_file_is_refused_the_second_time(read, report):
    with pytest.raises(BingoError, match=r"^--sheet: knn-5/best "):
        read(*as_command(report), "--sheet", "worst=b.png", "--sheet", "knn-5/best=c.png")


@pytest.mark.parametrize("kind", JOBS.values(), ids=lambda kind: kind.STAGE)
def test_every_stage_is_a_module_that_runs_its_job(kind):
    first, *others = inspect.signature(import_module(f"bingo.stages.{kind.STAGE}").run).parameters.values()
    assert first.annotation is kind
    assert [other.name for other in others] == (["threads"] if kind.DEVICE == "none" else ["device", "workers"])


def test_threads_are_those_of_torch_and_of_libraries_that_read_the_environment(monkeypatch, jobs):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    before = torch.get_num_threads()
    seen = []
    try:
        for name in ("bags", "map_figure"):  # one without networks, one with
            module = import_module(f"bingo.stages.{name}")
            monkeypatch.setattr(module, "run", lambda *given: seen.append((os.environ["OMP_NUM_THREADS"], given[-1])))
            stage.run(jobs[name], 3, 2)
        assert torch.get_num_threads() == 3
        assert seen == [("3", 3), ("3", 2)]
    finally:
        torch.set_num_threads(before)
