"""What rules call: each command is read as the job that the study has there."""

import re
import shlex
import sys

import pytest

from bingo.cli import commands, launch, main, stage
from bingo.study.jobs import ExportJob
from bingo.study.report_jobs import SheetsJob
from bingo.study.stages import JOBS
from tests.study.every_job import STUDY, every_job, make_data

EXPORTS = ("onnx.onnx", "timm.safetensors", "huggingface")
TARGETS = ["all", "tables_so_far", *(f"results/s/export/alone/seed-0/{name}" for name in EXPORTS)]


@pytest.fixture
def called(workspace, monkeypatch):
    """The command lines of a study with a job of every stage, scattered ones among them, and all its jobs."""
    make_data(workspace.folder)
    workspace.write(STUDY)
    scattered = ("--set-scatter", "bags=2", "embeddings=2")
    output = workspace.finish("--dry-run", "--printshellcmds", *scattered, "--", *TARGETS)
    lines = re.findall(r"^Shell command: python -m bingo (.*)$", output, re.MULTILINE)
    monkeypatch.chdir(workspace.folder)
    return [shlex.split(line) for line in lines], list(every_job(STUDY).values())


def read(words, monkeypatch):
    """Return the job that a command line is read as; nothing is run."""
    jobs = []
    for module in (stage, commands, main):
        monkeypatch.setattr(module, "start", lambda _: None)
    monkeypatch.setattr(launch, "launch", lambda *_: None)
    monkeypatch.setattr(stage, "run", lambda job, *_: jobs.append(job))
    monkeypatch.setattr("bingo.stages.export.run", lambda job, **_: jobs.append(job))
    monkeypatch.setattr(sys, "argv", ["bingo", *words])
    with pytest.raises(SystemExit) as end:
        main.app()
    assert end.value.code == 0, words
    (job,) = jobs
    return job


def told(job):
    """Return what is the same for a job and for one of its shards or their gathering."""
    apart = {"events", "shards", "part"} | ({"output"} if getattr(job, "part", None) else set())
    return type(job), job.model_dump(exclude=job.irrelevant() | dict.fromkeys(apart, True))


def test_every_command_of_a_rule_is_read_as_a_job_of_the_study(called, monkeypatch):
    lines, expected = called
    found = [read(words, monkeypatch) for words in lines]
    assert {type(job) for job in found} == set(JOBS.values())
    for job in found:
        if isinstance(job, ExportJob | SheetsJob) or "tables-so-far" in str(job):
            continue
        alike = [other for other in expected if type(other) is type(job)]
        if getattr(job, "part", None):
            alike = [other.model_copy(update={"part": job.part}) for other in alike]
        assert told(job) in [told(other) for other in alike]
    exports = {(job.to, str(job.output)) for job in found if isinstance(job, ExportJob)}
    assert exports == {(path.rpartition("/")[2].partition(".")[0], path) for path in TARGETS[2:]}
    parts = [(type(job), job.part) for job in found if getattr(job, "part", None)]
    assert {part for _, part in parts} == {"1-of-2", "2-of-2"}
    assert all(len(job.shards) in (0, 2) for job in found if hasattr(job, "shards"))
    assert any(job.shards for job in found if hasattr(job, "shards"))
