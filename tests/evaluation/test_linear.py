import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.preprocessing import StandardScaler

from bingo.errors import BingoError
from bingo.evaluation import linear
from bingo.evaluation.linear import (
    LinearHeads,
    cached_batches,
    evaluate_linear,
    linear_accuracy,
    linear_learning_rate,
    standardiser,
    train_linear,
)
from bingo.study.protocols import PROTOCOLS, TRANSFER_PROTOCOLS, Linear
from bingo.study.sections import Steps
from bingo.views.recipes import RECIPES, Recipe
from tests.stages.conftest import TRAIN

from .conftest import CPU

DIM, CLASSES, EPOCHS = 9, 7, 6
LRS = (0.001, 0.05, 0.5, 3.0)
ONCE = [1, 1, 0.1, 0.1, 0.1, 0.01]  # factors on the learning rate, epoch by epoch


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    labels = rng.integers(CLASSES, size=50)
    features = rng.normal(size=(CLASSES, DIM))[labels] + rng.normal(size=(50, DIM))
    return torch.from_numpy(features.astype(np.float32)), torch.from_numpy(labels)


@pytest.fixture(scope="module")
def batches(data):
    return cached_batches(*data, 16, seed=3)


def trained(batches, lrs, weight_decay=0.0, seed=3, epochs=EPOCHS):
    def rates(epoch):
        return [lr * ONCE[epoch] for lr in lrs]

    return train_linear(batches, DIM, CLASSES, seed, rates, epochs, weight_decay, CPU)


def test_classifiers_start_alike_from_small_normal_weights_and_zero_bias(batches):
    start = train_linear(batches, 300, 40, 5, lambda _: [1.0, 2.0, 3.0], 0, 0.0, CPU)
    assert start.weight.shape == (3, 40, 300)
    assert torch.equal(start.weight[0], start.weight[1])
    assert torch.equal(start.weight[0], start.weight[2])
    assert torch.equal(start.bias, torch.zeros(3, 40))
    weights = start.weight[0]
    assert float(weights.mean()) == pytest.approx(0, abs=4 * 0.01 / math.sqrt(12_000))
    assert float(weights.std()) == pytest.approx(0.01, rel=0.03)
    assert float((weights.abs() < 0.01).double().mean()) == pytest.approx(0.6827, abs=0.02)
    other = train_linear(batches, 300, 40, 6, lambda _: [1.0], 0, 0.0, CPU)
    assert (other.weight[0] != weights).double().mean() > 0.99


@pytest.mark.parametrize("weight_decay", [0.0, 0.01])
def test_classifiers_side_by_side_are_each_torchs_own_sgd(batches, plain_sgd, weight_decay):
    found, start = trained(batches, LRS, weight_decay), trained(batches, LRS, epochs=0)
    ends = []
    for head, lr in enumerate(LRS):
        rates = [lr * factor for factor in ONCE]
        weight, bias = plain_sgd(batches, start.weight[0], start.bias[0], rates, weight_decay)
        torch.testing.assert_close(found.weight[head], weight, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(found.bias[head], bias, atol=1e-5, rtol=1e-5)
        ends.append(weight)
    assert (ends[2] - start.weight[0]).abs().max() > 0.3  # far from where it started
    assert all((a - b).abs().max() > 1e-2 for a, b in zip(ends[1:], ends[:-1], strict=True))


def test_a_classifier_that_diverges_does_not_disturb_the_others(batches):
    sound, disturbed = trained(batches, LRS, 0.01), trained(batches, [*LRS, 1e6], 0.01)
    assert not disturbed.weight[-1].isfinite().any()
    torch.testing.assert_close(disturbed.weight[:-1], sound.weight, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(disturbed.bias[:-1], sound.bias, atol=1e-6, rtol=1e-5)


def test_cached_batches_are_all_images_in_a_new_order_each_epoch():
    features, labels = torch.arange(50.0)[:, None].repeat(1, 3), torch.arange(50)
    batches = cached_batches(features, labels, 16, seed=0)
    orders = []
    for epoch in (0, 1, 0):
        parts = list(batches(epoch))
        assert [len(part_labels) for _, part_labels in parts] == [16, 16, 16, 2]
        assert all(torch.equal(rows[:, 0].long(), part_labels) for rows, part_labels in parts)
        orders.append(torch.cat([part_labels for _, part_labels in parts]).tolist())
    assert sorted(orders[0]) == list(range(50))
    assert orders[0] == orders[2]
    assert orders[0] != orders[1]
    other = cached_batches(features, labels, 50, seed=1)
    assert next(other(0))[1].tolist() not in (orders[0], orders[1])


STEPS = Linear(4, 8, 2.0, 0.0, Steps(milestones=[1, 3], factor=0.1), "", final_lr=0.5, efficientnet_lr=0.2)


@pytest.mark.parametrize(
    ("protocol", "architecture", "rates"),
    [
        (PROTOCOLS["linear-moco"], "resnet18", {0: 30, 59: 30, 60: 3, 79: 3, 80: 0.3, 99: 0.3}),
        (PROTOCOLS["linear-moco"], "efficientnet_b0", {0: 30, 99: 0.3}),
        # A cosine that ends at a final rate.
        (PROTOCOLS["linear-bingo"], "mobilenet_v3_large", {0: 30, 40: 0.01 + 29.99 * 0.75, 60: 15.005, 120: 0.01}),
        (PROTOCOLS["linear-bingo"], "timm/tf_efficientnetv2_s", {0: 3, 60: 1.5005, 120: 0.001}),
        (TRANSFER_PROTOCOLS["linear"], "efficientnet_b0", {0: 3, 199: 3}),
        (STEPS, "resnet18", {0: 2.0, 1: 0.65, 2: 0.65, 3: 0.515}),
        (STEPS, "efficientnet_b0", {0: 0.2, 1: 0.065, 3: 0.0515}),
        (replace(STEPS, schedule=None), "efficientnet_b0", {0: 0.2, 3: 0.2}),
    ],
)
def test_the_learning_rate_follows_the_schedule_and_the_architecture(protocol, architecture, rates):
    found = {epoch: linear_learning_rate(protocol, architecture, epoch) for epoch in rates}
    assert found == pytest.approx(rates, rel=1e-9)


def test_standardising_is_that_of_scikit_learn_but_for_the_sample_variance(data):
    features, _ = data
    train, val = features[:30] * torch.linspace(0.1, 50, DIM) + 4, features[30:]
    standardise = standardiser(train)
    scaler = StandardScaler().fit(train.double().numpy())
    for part in (train, val):
        # scikit-learn divides by N under the root, this by N - 1.
        expected = scaler.transform(part.double().numpy()) * np.sqrt(29 / 30)
        np.testing.assert_allclose(standardise(part), expected, atol=1e-4)


@pytest.mark.parametrize("value", [0.0, 0.1, 1 / 3, 7.7, 1000.3])
def test_a_column_that_never_varies_is_only_shifted(value):
    # 1000 values of 0.1 have a float32 mean beside 0.1, so a deviation that is not zero.
    features = torch.full((1000, 1), value)
    standardise = standardiser(features)
    assert standardise(features).eq(0).all()
    assert float(standardise(torch.tensor([[value + 2]]))) == pytest.approx(2, abs=1e-3)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_classifier_that_diverged_is_refused(data, value):
    heads = LinearHeads(torch.zeros(1, CLASSES, DIM), torch.zeros(1, CLASSES))
    heads.weight[0, 2, 3] = value
    with pytest.raises(BingoError, match=r"^evaluations: "):
        linear_accuracy(heads, *data)


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


def test_cached_features_are_standardised_by_the_training_images_alone(shorten, probe, seen, features):
    evaluate_linear(shorten("linear-moco-small"), probe(seed=7))
    (train, labels), (val, val_labels) = features("train"), features("val")
    scaler = StandardScaler().fit(train.double())
    expected, expected_val = (
        torch.from_numpy(scaler.transform(part.double()) * np.sqrt((TRAIN - 1) / TRAIN)) for part in (train, val)
    )
    assert seen["settings"] == (train.shape[1], 10, 7, 0.0)
    assert seen["rates"] == [[0.1], [pytest.approx(0.01)]]
    for epoch in seen["epochs"]:
        distance = torch.cdist(torch.cat([batch for batch, _ in epoch]).double(), expected)
        assert distance.min(1).values.max() < 1e-3
        rows = distance.argmin(1)
        assert sorted(rows.tolist()) == list(range(TRAIN))
        assert torch.equal(torch.cat([batch_labels for _, batch_labels in epoch]), labels[rows])
    torch.testing.assert_close(seen["val"].double(), expected_val, atol=2e-3, rtol=2e-3)
    assert torch.equal(seen["val_labels"], val_labels)


WHOLE_IMAGE = Recipe(crop_scale=(1, 1), crop_ratio=(1, 1), flip=0)


def test_augmented_features_are_those_of_the_images_with_their_labels(shorten, probe, seen, features, monkeypatch):
    # With crops that keep the whole image, an augmented view is the centre view that keeps it.
    monkeypatch.setitem(RECIPES, "crop-flip", WHOLE_IMAGE)
    evaluate_linear(shorten("linear"), probe(seed=3))
    (train, labels), (val, val_labels) = (features(split, "bicubic", True) for split in ("train", "val"))
    orders = []
    for epoch in seen["epochs"]:
        assert [len(batch) for batch, _ in epoch] == [64, 64, 64, 18]  # the incomplete last batch too
        # Centre views are rounded to bytes, and these are not.
        distance = torch.cdist(torch.cat([batch for batch, _ in epoch]).double(), train.double())
        nearest = distance.topk(2, dim=1, largest=False).values
        assert (nearest[:, 0] < 0.2 * nearest[:, 1]).double().mean() > 0.9
        rows = distance.argmin(1)
        assert torch.equal(torch.cat([batch_labels for _, batch_labels in epoch]), labels[rows])
        assert len(set(rows.tolist())) == TRAIN
        orders.append(rows.tolist())
    assert orders[0] != orders[1]
    assert seen["settings"] == (train.shape[1], 10, 3, 0.0)
    assert seen["rates"] == [[3.0], [3.0]]
    torch.testing.assert_close(seen["val"], val, atol=1e-4, rtol=1e-4)  # not standardised
    assert torch.equal(seen["val_labels"], val_labels)


@pytest.mark.parametrize(("architecture", "lr"), [("resnet10", 30.0), ("efficientnet_b0", 3.0)])
def test_views_are_new_in_every_epoch_and_the_rate_is_that_of_the_network(
    architecture, lr, shorten, probe, seen, features
):
    evaluate_linear(shorten("linear-bingo"), probe(architecture=architecture))
    assert seen["rates"] == [[lr], [pytest.approx(lr / 3000 + (lr - lr / 3000) / 2)]]
    first, second = (torch.cat([batch for batch, _ in epoch]) for epoch in seen["epochs"])
    assert torch.cdist(first.double(), second.double()).min() > 1e-3
    torch.testing.assert_close(seen["val"], features("val")[0], atol=1e-4, rtol=1e-4)
