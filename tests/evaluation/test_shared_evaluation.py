"""Several processes measure what one does: no image is left out, none counts twice."""

import copy
import json

import pytest
import torch

from bingo.evaluation.finetune import finetune
from bingo.study.protocols import PROTOCOLS
from bingo.training import embed
from bingo.views.recipes import RECIPES

from ..training.processes import run_in_processes
from .conftest import CPU


def finetuned(probe, backbone):
    measured = probe(copy.deepcopy(backbone))
    images = measured.training_batches(measured.train, RECIPES["crop-flip"], 64, True)
    network = finetune(PROTOCOLS["semi-10"], measured.backbone, images, measured.train_labels, 10, CPU, 0)
    return network.state_dict()


def test_processes_end_with_the_same_network(probe, backbone, shorten):
    shorten("semi-10")
    first, second = run_in_processes(2, finetuned, probe, backbone)
    assert list(first) == list(second)
    assert all(torch.equal(first[name], second[name]) for name in first)


def measure(evaluate, name, output):
    evaluate(name, output=output)


# Training images make three batches, validation images one: shares are unequal, and one process has none.
@pytest.mark.parametrize("name", ["knn-10", "linear-cached", "linear-moco-small", "linear-moco", "semi-10"])
def test_two_processes_measure_as_one(name, shorten, evaluate, tmp_path, monkeypatch):
    monkeypatch.setattr(embed, "BATCH", 80)
    if name.startswith("linear-moco"):
        shorten(name, batch_size=19)  # the last batch has one image, so one process has none
    else:
        shorten(name)
    results = []
    for processes in (1, 2):
        output = tmp_path / f"{processes}.json"
        run_in_processes(processes, measure, evaluate, name, output)
        results.append(json.loads(output.read_text()))
    alone, shared = results
    assert alone["facts"] == shared["facts"]
    if name == "semi-10":  # batch-norm sees other batches
        assert shared["metrics"].keys() == alone["metrics"].keys()
    else:
        assert shared["metrics"] == alone["metrics"]
