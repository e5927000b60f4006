import h5py
import numpy as np
import pytest
import torch
from sklearn.preprocessing import StandardScaler

from bingo.evaluation import linear
from bingo.stages import evaluation
from bingo.study.protocols import PROTOCOLS
from bingo.views.recipes import RECIPES, Recipe

from .conftest import TRAIN


@pytest.fixture
def seen(monkeypatch):
    """What a linear protocol trains on: the batches of each epoch, the rest; and what it measures."""
    calls, train, measure = {}, linear.train_linear, linear.linear_accuracy

    def recorded(batches, dim, classes, seed, rates, epochs, weight_decay, device):
        calls["epochs"] = [list(batches(epoch)) for epoch in range(epochs)]
        calls["rates"] = [rates(epoch) for epoch in range(epochs)]
        calls["settings"] = (dim, classes, seed, weight_decay)
        return train(calls["epochs"].__getitem__, dim, classes, seed, rates, epochs, weight_decay, device)

    def measure_recorded(heads, features, labels):
        calls.update(val=features, val_labels=labels)
        return measure(heads, features, labels)

    monkeypatch.setattr(linear, "train_linear", recorded)
    monkeypatch.setattr(linear, "linear_accuracy", measure_recorded)
    return calls


def rows_of(features, expected):
    """Return which row of ``expected`` each of ``features`` is."""
    distance = torch.cdist(features.double(), expected.double())
    assert distance.min(1).values.max() < 1e-3
    return distance.argmin(1)


def test_cached_features_are_standardised_by_the_training_images_alone(shorten, measured, seen, features):
    shorten("linear-moco-small")
    measured("linear-moco-small", seed=7)
    (train, labels), (val, val_labels) = features("train"), features("val")
    scaler = StandardScaler().fit(train.double())
    expected, expected_val = (
        torch.from_numpy(scaler.transform(part.double()) * np.sqrt((TRAIN - 1) / TRAIN)) for part in (train, val)
    )
    assert seen["settings"] == (train.shape[1], 10, 7, 0.0)
    assert seen["rates"] == [[0.1], [pytest.approx(0.01)]]
    for epoch in seen["epochs"]:
        rows = torch.cat([rows_of(batch, expected) for batch, _ in epoch])
        assert sorted(rows.tolist()) == list(range(TRAIN))
        assert torch.equal(torch.cat([batch_labels for _, batch_labels in epoch]), labels[rows])
    torch.testing.assert_close(seen["val"].double(), expected_val, atol=2e-3, rtol=2e-3)
    assert torch.equal(seen["val_labels"], val_labels)


WHOLE_IMAGE = Recipe(crop_scale=(1, 1), crop_ratio=(1, 1), flip=0)


def test_augmented_features_are_those_of_the_images_with_their_labels(shorten, measured, seen, features, monkeypatch):
    # With crops that keep the whole image, an augmented view is the centre view that keeps it.
    monkeypatch.setitem(RECIPES, "crop-flip", WHOLE_IMAGE)
    shorten("linear")
    measured("linear", target="cifar10", seed=3)
    (train, labels), (val, val_labels) = (features(split, "bicubic", True) for split in ("train", "val"))
    orders = []
    for epoch in seen["epochs"]:
        assert [len(batch) for batch, _ in epoch] == [64, 64, 64, 18]  # the incomplete last batch too
        batches = torch.cat([batch for batch, _ in epoch])
        # Centre views are rounded to bytes, and these are not.
        distance = torch.cdist(batches.double(), train.double())
        rows = distance.argmin(1)
        assert (
            distance.min(1).values < 0.2 * distance.topk(2, dim=1, largest=False).values[:, 1]
        ).double().mean() > 0.9
        assert torch.equal(torch.cat([batch_labels for _, batch_labels in epoch]), labels[rows])
        assert len(set(rows.tolist())) == TRAIN
        orders.append(rows.tolist())
    assert orders[0] != orders[1]
    assert seen["settings"] == (train.shape[1], 10, 3, 0.0)
    assert seen["rates"] == [[3.0], [3.0]]
    torch.testing.assert_close(seen["val"], val, atol=1e-4, rtol=1e-4)  # not standardised
    assert torch.equal(seen["val_labels"], val_labels)


def test_augmented_features_are_new_in_every_epoch_and_val_features_are_bilinear(shorten, measured, seen, features):
    shorten("linear-moco")
    measured("linear-moco")
    first, second = (torch.cat([batch for batch, _ in epoch]) for epoch in seen["epochs"])
    assert torch.cdist(first.double(), second.double()).min() > 1e-3
    torch.testing.assert_close(seen["val"], features("val")[0], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(("architecture", "lr"), [("resnet10", 30.0), ("efficientnet_b0", 3.0)])
def test_the_rate_is_that_of_the_networks_kind(architecture, lr, shorten, measured, seen, backbone, monkeypatch):
    load = evaluation.read_backbone

    def loaded(*arguments):
        network, metadata = load(*arguments)
        return network, {**metadata, "backbone": {**metadata["backbone"], "architecture": architecture}}

    monkeypatch.setattr(evaluation, "read_backbone", loaded)
    shorten("linear-bingo")
    measured("linear-bingo")
    assert seen["rates"] == [[lr], [pytest.approx(lr / 3000 + (lr - lr / 3000) / 2)]]


def test_the_chosen_rate_and_the_held_out_images_are_reported(shorten, measured, listings):
    shorten("linear-cached")
    facts = measured("linear-cached")["facts"]
    with h5py.File(listings[0]) as file:
        counts = np.bincount(file["train/label"][:])
    assert facts["held_out"] == np.rint(0.1 * counts).sum()
    assert facts["lr"] in PROTOCOLS["linear-cached"].lrs
