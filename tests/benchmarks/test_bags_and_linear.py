"""Searches and classifiers that are compared do the same, as far as that can be said."""

import h5py
import numpy as np
import pytest
import torch

from benchmarks import bags, dag, linear
from bingo.evaluation.linear import train_linear


def test_eight_classifiers_side_by_side_end_as_eight_runs_do(monkeypatch):
    features, labels = linear.clustered(5, 300, 16)
    start = train_linear(lambda _: iter(()), 16, 5, 0, lambda _: [0.0], 0, 0.0, features.device).weight[0]
    lrs = (0.001, 0.1)
    # One batch an epoch, so that the order of images within it does not matter.
    settings = type(linear.protocol())(3, 300, lrs, 0.1, "")
    monkeypatch.setattr(linear, "protocol", lambda: settings)
    heads = linear.side_by_side_heads(features, labels, 5, 3)
    for head, lr in enumerate(lrs):
        layer = linear.run_of_its_own(features, labels, start, lr, 3)
        torch.testing.assert_close(heads.weight[head], layer.weight.detach(), atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(heads.bias[head], layer.bias.detach(), atol=1e-5, rtol=1e-5)
    assert len(linear.separate_runs(features, labels, 5, 1)) == 2


def test_bags_found_blockwise_are_those_of_one_index(tmp_path):
    bags.write_embeddings(tmp_path / "embeddings.h5", 1500, 16)
    bags.blockwise(tmp_path / "embeddings.h5", tmp_path / "bags.h5", 5)
    bags.all_at_once(tmp_path / "embeddings.h5", tmp_path / "bags.npy", 5)
    with h5py.File(tmp_path / "bags.h5") as file:
        ours = file["members"][:].reshape(-1, 5)
    reference = np.load(tmp_path / "bags.npy")
    assert ours.shape == reference.shape
    # Rounding decides between neighbours that are as near as each other.
    assert np.mean(ours == reference) > 0.999


@pytest.mark.slow
def test_the_finished_study_has_nothing_to_do(tmp_path):
    dag.finish(tmp_path, 1)
    said = dag.plan(tmp_path, "-n")
    assert "Nothing to be done" in said
    assert "missing provenance" not in said
    (tmp_path / "results/many/evaluation/distilled-1/seed-2/knn-10.json").unlink()
    assert "Nothing to be done" not in dag.plan(tmp_path, "-n")
