"""Whole studies from nothing to the report: the demo, against a record of it; and on a GPU all of Fashion-MNIST."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import torch

from tests.benchmarks.measure import Row, device_name, elapsed

_ROOT = Path(__file__).parents[2]
_RECORDED = Path(__file__).parent / "demo_before.csv"
"""One run of an earlier commit, both of which it names: side by side they would take as long as all else together."""
_GOALS = {"demo": "ratio <= 0.6"}


def rows() -> Iterator[Row]:
    """Measure the time, and what the study's table says of its networks, the mean over seeds."""
    device = device_name()
    recorded = pd.read_csv(_RECORDED)
    recorded = recorded[recorded["device"] == device].set_index("benchmark")["reference"]
    with tempfile.TemporaryDirectory() as folder:
        found = {"demo": elapsed(lambda: _run("config.yaml", Path(folder)))} | _accuracies(Path(folder))
    for name, ours in found.items():
        reference = recorded.get(name)
        ratio = None if reference is None else ours / reference
        unit = "s" if name == "demo" else "% top-1"
        yield Row(name, unit, device, _GOALS.get(name, "within noise"), ours, reference, ratio, repeats=1)
    if torch.cuda.is_available():
        with tempfile.TemporaryDirectory() as folder:
            seconds = elapsed(lambda: _run("fashion-mnist.yaml", Path(folder)))
        yield Row("fashion-mnist-gpu", "s", device, ours=seconds, repeats=1)
    else:
        yield Row("fashion-mnist-gpu", "s", "no GPU")


def _run(study: str, folder: Path) -> None:
    command = [sys.executable, "-m", "snakemake", "--cores", "all", "--quiet", "all", "-s", str(_ROOT / "Snakefile")]
    command += ["--workflow-profile", str(_ROOT / "workflow" / "profiles" / "default")]
    command += ["--configfile", str(_ROOT / "config" / study)]
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = os.environ | {"PYTHONPATH": str(_ROOT), "PATH": path}
    subprocess.run(command, cwd=folder, check=True, env=environment)


def _accuracies(folder: Path) -> dict[str, float]:
    table = pd.read_csv(folder / "results" / "demo" / "tables" / "demo.csv")
    table = table[table["metric"] == "top1"]
    network = table["student"].fillna(table["teacher"])
    return dict(zip("demo-" + network + "-" + table["protocol"], table["mean"], strict=True))
