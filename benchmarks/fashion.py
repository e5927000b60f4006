"""Time of config/fashion-mnist.yaml on a GPU."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch

from benchmarks.demo import run_study
from benchmarks.measure import BenchmarkRow, device_name, elapsed


def rows() -> Iterator[BenchmarkRow]:
    """Measure the time, on a GPU only."""
    if not torch.cuda.is_available():
        yield BenchmarkRow("fashion-mnist-gpu", "s", "no GPU")
        return
    with tempfile.TemporaryDirectory() as folder:
        seconds = elapsed(lambda: run_study("fashion-mnist.yaml", Path(folder)))
    yield BenchmarkRow("fashion-mnist-gpu", "s", device_name(), ours=seconds, repeats=1)
