"""Time of `snakemake -n` on a finished study of about 500 jobs, beside that of `snakemake --version`."""

import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import yaml
from snakemake.executors.touch import Executor

from benchmarks.measure import BenchmarkRow, device_name, side_by_side

_ROOT = Path(__file__).parents[1]
_TINY = {"architecture": "resnet10", "stem": "small", "width": 0.0625}
_TRAINING = {"epochs": 2, "batch_size": 16, "views": "small"}


def study(students: int) -> dict[str, Any]:
    """Return a study of small images: 19 jobs per student, and about 20 more."""
    common = {"backbone": _TINY, "training": _TRAINING, "queue_size": 64}
    sizes = range(1, students + 1)
    return {
        "study": "many",
        "seeds": [0, 1, 2],
        "data": {"source": "demo", "preprocessing": {"size": 28, "resize": 28}, "max_train": 96, "max_val": 64},
        "teachers": {"big": {"method": "moco", **common}},
        "bags": {"knn": {"criterion": "knn", "teacher": "big", "size": 3}},
        "students": {f"distilled-{size}": {"method": "bingo", "bags": "knn", **common} for size in sizes},
        "evaluations": ["linear-moco-small", "linear-cached", "knn-1", "knn-10", "knn-20"],
        "tables": {"main": {"title": "Many"}},
    }


def snakemake(folder: Path, *options: str, start: str = "") -> str:
    """Run this environment's Snakemake in a folder, after the Python code ``start``; return its output."""
    command = [sys.executable, "-c", f"{start}\nfrom snakemake.cli import main\nmain()", *options]
    return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout


def plan(folder: Path, *options: str, start: str = "") -> str:
    """Run Snakemake on the study in a folder; return its output."""
    return snakemake(folder, "-s", str(_ROOT / "Snakefile"), "--configfile", "study.yaml", *options, start=start)


def finish(folder: Path, students: int) -> None:
    """Make a study look finished: all files exist, with the same age, and Snakemake has metadata of them."""
    (folder / "study.yaml").write_text(yaml.safe_dump(study(students)), encoding="utf-8")
    for line in plan(folder, "--summary").splitlines()[1:]:
        path = folder / line.split("\t")[0]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        os.utime(path, (1, 1))
    # Snakemake sleeps for 0.1 s per job otherwise.
    plan(
        folder, "--touch", "--forceall", start=f"from {Executor.__module__} import Executor\nExecutor.SLEEPING_TIME = 0"
    )


def rows() -> Iterator[BenchmarkRow]:
    """Measure `snakemake -n` and `snakemake --version`, and their difference in seconds."""
    with tempfile.TemporaryDirectory() as name:
        finish(Path(name), 25)
        work = {"ours": partial(plan, Path(name), "-n"), "reference": partial(snakemake, Path(name), "--version")}
        times = side_by_side(work, 5)
    device = device_name()
    yield times.row("dag", "s", device, goal="2 s more than the reference")
    more = [ours - theirs for ours, theirs in zip(times.times["ours"], times.times["reference"], strict=True)]
    yield BenchmarkRow("dag-more", "s", device, "<= 2 s", statistics.median(more), repeats=len(more))
