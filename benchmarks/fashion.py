"""The study of all 60,000 images of Fashion-MNIST, on a GPU."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch

from tests.benchmarks.demo import run_study
from tests.benchmarks.measure import Row, device_name, elapsed


def rows() -> Iterator[Row]:
    """Measure the time; on a CPU it would be hours."""
    if not torch.cuda.is_available():
        yield Row("fashion-mnist-gpu", "s", "no GPU")
        return
    with tempfile.TemporaryDirectory() as folder:
        seconds = elapsed(lambda: run_study("fashion-mnist.yaml", Path(folder)))
    yield Row("fashion-mnist-gpu", "s", device_name(), ours=seconds, repeats=1)
