"""Time of the whole demo study, compared with a recorded run."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import torch

from benchmarks.measure import BenchmarkRow, device_name, elapsed

_ROOT = Path(__file__).parents[1]
_RECORDED = Path(__file__).parent / "demo_before.csv"
"""A recorded run of an earlier commit: running both would double the time of the benchmarks."""
_GOALS = {"demo": "ratio <= 0.6"}
_SHARING = 8


def demo_is_on_record() -> bool:
    """Return whether the record has a run on this device."""
    return len(_recorded(device_name())) > 0


def rows() -> Iterator[BenchmarkRow]:
    """Measure the time, and the accuracy of each network: the mean over seeds."""
    device = device_name()
    recorded = _recorded(device)
    with tempfile.TemporaryDirectory() as folder:
        measured = {"demo": elapsed(lambda: run_study("config.yaml", Path(folder)))} | _accuracies(Path(folder))
    for name, ours in measured.items():
        reference = recorded.get(name)
        ratio = None if reference is None else ours / reference
        unit = "s" if name == "demo" else "% top-1"
        yield BenchmarkRow(name, unit, device, _GOALS.get(name, "within noise"), ours, reference, ratio, repeats=1)


def run_study(study: str, folder: Path) -> None:
    """Run a study of config/ in a folder; on a GPU, eight jobs share it."""
    command = [sys.executable, "-m", "snakemake", "--cores", "all", "--quiet", "all", "-s", str(_ROOT / "Snakefile")]
    command += ["--workflow-profile", str(_ROOT / "workflow" / "profiles" / "default")]
    command += ["--configfile", str(_ROOT / "config" / study)]
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = os.environ | {"PYTHONPATH": f"{_ROOT}:{os.environ.get('PYTHONPATH', '')}", "PATH": path}
    if torch.cuda.is_available():
        command += ["--resources", f"gpu={_SHARING}"]
        environment |= {"BINGO_JOBS_PER_GPU": str(_SHARING)}
    subprocess.run(command, cwd=folder, check=True, env=environment)


def _recorded(device: str) -> "pd.Series[float]":
    recorded = pd.read_csv(_RECORDED)
    return recorded[recorded["device"] == device].set_index("benchmark")["reference"]


def _accuracies(folder: Path) -> dict[str, float]:
    table = pd.read_csv(folder / "results" / "demo" / "tables" / "demo.csv")
    table = table[table["metric"] == "top1"]
    network = table["student"].fillna(table["teacher"])
    return dict(zip("demo-" + network + "-" + table["protocol"], table["mean"], strict=True))
