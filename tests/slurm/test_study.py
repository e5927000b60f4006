"""A study through a real SLURM: GPUs where they are due, a training that is cancelled, the results of a local run."""

import re
import subprocess
import time
from itertools import combinations

import pytest
import yaml

from tests.slurm.cluster import slurm
from tests.workflow.conftest import ROOT, Workspace, tiny_study

PROFILE = ROOT / "workflow" / "profiles" / "slurm"
GPU_RULES = set(yaml.safe_load((PROFILE / "config.yaml").read_text())["set-resources"])
# There is no database of jobs here, nothing to wait for on a shared file system, and no time to lose.
HERE = [
    *("--slurm-status-command", "squeue"),
    *("--slurm-init-seconds-before-status-checks", "1"),
    *("--latency-wait", "5"),
    "--slurm-no-account",
]
STUDENT_LOG = "logs/tiny/student/distilled/seed-0.log"


def study():
    """Return a study whose student trains for long enough to be met."""
    study = tiny_study()
    del study["students"]["alone"]
    training = study["students"]["distilled"]["training"]
    study["students"]["distilled"]["training"] = {**training, "epochs": 60}
    return study


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    with slurm(tmp_path_factory.mktemp("slurm")) as cluster:
        yield cluster


def cancel_in_training(cluster, folder):
    """Cancel the student's job after some epochs; return its number."""
    log = folder / STUDENT_LOG
    deadline = time.monotonic() + 300
    while not (log.exists() and len(re.findall(r"epoch \d+, lr", log.read_text())) >= 5):
        assert time.monotonic() < deadline, "training did not start"
        time.sleep(0.1)
    (number,) = [
        number
        for number, job in cluster.jobs().items()
        if (job.rule, job.state) == ("student", "RUNNING") and "distilled" in job.comment
    ]
    subprocess.run(["scancel", number], check=True)
    return number


def results(folder):
    """Return what must be the same wherever a study runs: all but what tells of its costs."""
    kinds = ("teachers", "embeddings", "bags", "students", "evaluation", "tables", "data")
    paths = (path for kind in kinds for path in (folder / "results" / "tiny" / kind).rglob("*"))
    return {path.relative_to(folder): path.read_bytes() for path in paths if path.is_file()}


def test_a_study_through_slurm_ends_like_a_local_one_though_a_training_is_cancelled(cluster, tmp_path):
    workspace, local = Workspace(tmp_path / "slurm"), Workspace(tmp_path / "local")
    for each in (workspace, local):
        each.folder.mkdir()
        each.write(study())
    main = workspace.start("--workflow-profile", str(PROFILE), *HERE)
    beside = local.start()
    try:
        cancelled = cancel_in_training(cluster, workspace.folder)
        output, _ = main.communicate(timeout=500)
        local_output, _ = beside.communicate(timeout=500)
    finally:
        main.kill()
        beside.kill()
    assert beside.returncode == 0, local_output
    assert main.returncode == 0, output
    assert re.search(r"resumed after epoch \d+", (workspace.folder / STUDENT_LOG).read_text())

    jobs = cluster.jobs()
    assert jobs[cancelled].state == "CANCELLED"
    assert {job.state for number, job in jobs.items() if number != cancelled} == {"COMPLETED"}
    assert len(jobs) == len(re.findall("has been submitted with SLURM jobid", output))

    for job in jobs.values():
        gpu = job.rule in GPU_RULES
        assert (job.gpus, job.partition) == (("gres:gpu:1", "gpu") if gpu else ("", "cpu")), job
        assert job.devices in (("0", "1") if gpu else ("none",)), job
    for one, other in combinations([job for job in jobs.values() if job.gpus], 2):
        assert one.devices != other.devices or one.end <= other.begin or other.end <= one.begin, (one, other)

    here, there = results(workspace.folder), results(local.folder)
    assert set(here) == set(there)
    assert {str(path) for path in here if here[path] != there[path]} == set()
