"""Several processes measure what one does: no image is left out, none counts twice."""

import json

import pytest

from bingo.embeddings import embeddings
from bingo.evaluation.stage import evaluate

from ..engine.processes import run_in_processes
from .conftest import CPU


def measure(job, listings, model, output):
    evaluate(job, *listings, model, None, output, CPU, 0)


# Training images make three batches, validation images one: shares are unequal, and one process has none.
@pytest.mark.parametrize("name", ["knn-10", "linear-cached", "linear-moco-small", "linear-moco", "semi-10"])
def test_two_processes_measure_as_one(name, shorten, make_job, listings, model, tmp_path, monkeypatch):
    monkeypatch.setattr(embeddings, "BATCH", 80)
    shorten(name)
    results = []
    for processes in (1, 2):
        output = tmp_path / f"{processes}.json"
        run_in_processes(processes, measure, make_job(name), listings, model, output)
        results.append(json.loads(output.read_text()))
    alone, shared = results
    assert alone["facts"] == shared["facts"]
    if name == "semi-10":  # batch-norm sees other batches
        assert shared["metrics"].keys() == alone["metrics"].keys()
    else:
        assert shared["metrics"] == alone["metrics"]
