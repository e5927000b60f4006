"""What Snakemake asks of a finished study of some 500 jobs against what it does before it reads any."""

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

from tests.benchmarks.measure import Row, device_name, side_by_side

_ROOT = Path(__file__).parents[2]
_TINY = {"architecture": "resnet10", "stem": "small", "width": 0.0625}
_TRAINING = {"epochs": 2, "batch_size": 16, "views": "small"}


def study(students: int) -> dict[str, Any]:
    """Return a study of small images: 19 jobs for each student, and some 20 more."""
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
    """Run Snakemake of this environment in a folder, after some Python; return what it prints."""
    command = [sys.executable, "-c", f"{start}\nfrom snakemake.cli import main\nmain()", *options]
    return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout


def plan(folder: Path, *options: str, start: str = "") -> str:
    """Run Snakemake on the study in a folder; return what it prints."""
    return snakemake(folder, "-s", str(_ROOT / "Snakefile"), "--configfile", "study.yaml", *options, start=start)


def finish(folder: Path, students: int) -> None:
    """Make a study look finished: all its files there, none older than another, and remembered by Snakemake."""
    (folder / "study.yaml").write_text(yaml.safe_dump(study(students)), encoding="utf-8")
    for line in plan(folder, "--summary").splitlines()[1:]:
        path = folder / line.split("\t")[0]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        os.utime(path, (1, 1))
    # Snakemake would wait for a tenth of a second at each job.
    plan(
        folder, "--touch", "--forceall", start=f"from {Executor.__module__} import Executor\nExecutor.SLEEPING_TIME = 0"
    )


def rows() -> Iterator[Row]:
    """Measure `snakemake -n` and `snakemake --version`, and by how many seconds they differ."""
    with tempfile.TemporaryDirectory() as name:
        finish(Path(name), 25)
        work = {"ours": partial(plan, Path(name), "-n"), "reference": partial(snakemake, Path(name), "--version")}
        found = side_by_side(work, 5)
    device = device_name()
    yield found.row("dag", "s", device, goal="2 s more than the reference")
    more = [ours - theirs for ours, theirs in zip(found.times["ours"], found.times["reference"], strict=True)]
    yield Row("dag-more", "s", device, "<= 2 s", statistics.median(more), repeats=len(more))
