"""SIGKILL at any moment of a study: run again until it ends, it ends with the bytes of a run that nobody disturbed.

`BINGO_KILLS=30` kills so often, over all stages; by default it is a few times, and the study ends with its tables.
Moments are fractions of what the undisturbed run took, so that they mean the same on a slow machine.
"""

import os
import random
import signal
import subprocess
import time

import psutil
import pytest

from bingo.study.stages import JOBS
from tests.workflow.conftest import Workspace, tiny_study

pytestmark = pytest.mark.slow

KILLS = int(os.environ.get("BINGO_KILLS", "4"))
TARGETS = ["tables"] if KILLS < 30 else []  # else the report, and everything before it


def small_study():
    """Return a study with a job of every stage and no more than it takes."""
    study = tiny_study()
    study["data"] |= {"max_train": 64, "max_val": 32}
    del study["students"]["alone"]
    if not TARGETS:
        study["bags"]["means"] = {"criterion": "kmeans", "teacher": "big", "clusters": 6}
        study["students"]["stored"] = {**study["students"]["distilled"], "teacher_views": 1}
    return study


def results(folder):
    """Return the content of every file of the results but those that tell of costs."""
    files = [path.relative_to(folder) for path in (folder / "results").rglob("*") if path.is_file()]
    kept = [name for name in files if name.name != "report.html" and "benchmarks" not in name.parts]
    return {str(name): (folder / name).read_bytes() for name in kept}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """Return the results of a run that nobody disturbs, and how long it took, in seconds."""
    workspace = Workspace(tmp_path_factory.mktemp("undisturbed"))
    workspace.write(small_study())
    start = time.monotonic()
    workspace.finish(*TARGETS)
    return results(workspace.folder), time.monotonic() - start


def jobs_of(main):
    """Return the stages that run."""
    found = []
    for child in main.children(recursive=True):
        try:
            words = child.cmdline()
        except (psutil.NoSuchProcess, psutil.ZombieProcess):
            continue
        if words[1:3] == ["-m", "bingo"]:
            found.append(child)
    return found


def kill(main, rng):
    """Kill Snakemake or one of its jobs, and wait until all of them have ended; return what was hit."""
    process = psutil.Process(main.pid)
    descendants = process.children(recursive=True)
    jobs = jobs_of(process)
    victim = rng.choice(jobs) if jobs and rng.random() < 0.6 else None
    what = "snakemake" if victim is None else next(word for word in victim.cmdline() if word in JOBS)
    (victim or process).send_signal(signal.SIGKILL)
    main.communicate(timeout=600)
    _, alive = psutil.wait_procs(descendants, timeout=60)  # jobs of a Snakemake that is gone end by themselves
    assert not alive, f"still running: {alive}"
    return what


def test_a_study_killed_at_any_moment_ends_with_the_same_bytes(undisturbed, tmp_path):
    expected, seconds = undisturbed
    rng, kills, studies, log = random.Random(0), 0, 0, []
    while kills < KILLS:
        studies += 1
        workspace = Workspace(tmp_path / str(studies))
        workspace.folder.mkdir()
        workspace.write(small_study())
        while True:
            main = workspace.start(*TARGETS)
            try:
                # Short of the whole run: most of what was done need not be done again.
                output, _ = main.communicate(timeout=rng.uniform(0.1, 0.4) * seconds if kills < KILLS else 900)
                break
            except subprocess.TimeoutExpired:
                kills += 1
                done = len(results(workspace.folder))
                log.append(f"kill {kills}, study {studies}, {done} of {len(expected)} files: {kill(main, rng)}")
                print(log[-1], flush=True)
        assert main.returncode == 0, "\n".join([*log, output])
        found = results(workspace.folder)
        assert found.keys() == expected.keys(), log
        differing = [name for name in expected if found[name] != expected[name]]
        assert not differing, (differing, log)
