import math

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, top_k_accuracy_score
from sklearn.preprocessing import StandardScaler

from bingo.errors import BingoError
from bingo.evaluation.linear import LinearHeads, cached_batches, train_linear
from bingo.evaluation.subsets import stratified_rows
from bingo.evaluation.sweep import best_head, evaluate_sweep
from bingo.study.protocols import LinearSweep

from .conftest import CPU

DIM, CLASSES, PER_CLASS, EPOCHS = 8, 7, 60, 5
LRS = (1e-7, 0.003, 0.1)


def sweep_of(*lrs):
    return LinearSweep(epochs=EPOCHS, batch_size=32, lrs=lrs, held_out=0.1, source="")


PROTOCOL = sweep_of(*LRS)


def made(count, seed, noise=1.2):
    """Features on scales far apart, and labels, ``count`` of each class."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.repeat(np.arange(CLASSES), count))
    centres = np.random.default_rng(9).normal(size=(CLASSES, DIM))
    features = (centres[labels] + noise * rng.normal(size=(len(labels), DIM))) * np.geomspace(0.1, 10, DIM) + 3
    return torch.from_numpy(features.astype(np.float32)), torch.from_numpy(labels)


class FeatureProbe:
    """What the protocol asks of a probe, with features as given."""

    classes, seed, device = CLASSES, 4, CPU

    def __init__(self, train=None, val=None):
        self.train, self.train_labels = train or made(PER_CLASS, 0)
        self.val, self.val_labels = val or made(200, 1)

    def train_features(self, interpolation):
        assert interpolation == "bilinear"
        return self.train.clone()

    def val_features(self, interpolation):
        assert interpolation == "bilinear"
        return self.val.clone()


def held_out(probe):
    """Return which training images choose the learning rate: bool (N,)."""
    out = torch.zeros(len(probe.train), dtype=torch.bool)
    out[stratified_rows(probe.train_labels.numpy(), 0.1, 0, probe.seed)] = True
    return out


def test_held_out_images_bear_on_nothing_but_the_choice():
    # With one learning rate there is no choice: then not even absurd held-out features may change a bit of the result.
    probe, changed = FeatureProbe(), FeatureProbe()
    changed.train[held_out(probe)] = 1e6
    first, second = evaluate_sweep(sweep_of(0.01), probe), evaluate_sweep(sweep_of(0.01), changed)
    assert first == second
    assert 30 < first.metrics["top1"] < 90  # where any change of the classifier would show


def test_the_result_is_that_of_separate_classifiers_chosen_by_held_out_accuracy(plain_sgd):
    probe = FeatureProbe()
    out = held_out(probe)
    assert torch.bincount(probe.train_labels[out]).tolist() == [PER_CLASS // 10] * CLASSES
    scaler, count = StandardScaler().fit(probe.train[~out].double()), int((~out).sum())

    def scaled(rows):
        return torch.from_numpy(scaler.transform(rows.double()) * np.sqrt((count - 1) / count)).float()

    batches = cached_batches(scaled(probe.train[~out]), probe.train_labels[~out], 32, probe.seed)
    start = train_linear(batches, DIM, CLASSES, probe.seed, lambda _: [0.0], 0, 0.0, CPU)
    found = []
    for lr in LRS:
        rates = [lr * (1 + math.cos(math.pi * epoch / EPOCHS)) / 2 for epoch in range(EPOCHS)]
        weight, bias = plain_sgd(batches, start.weight[0], start.bias[0], rates, 0.0)
        on_held_out = (scaled(probe.train[out]) @ weight.T + bias).argmax(1)
        found.append((accuracy_score(probe.train_labels[out], on_held_out), lr, weight, bias))
    assert len({share for share, *_ in found}) == len(LRS)
    _, lr, weight, bias = max(found, key=lambda entry: entry[0])
    scores = scaled(probe.val) @ weight.T + bias
    measured = evaluate_sweep(PROTOCOL, probe)
    assert measured.facts == {"lr": lr, "held_out": int(out.sum())}
    for k in (1, 5):
        expected = 100 * top_k_accuracy_score(probe.val_labels, scores, k=k)
        assert measured.metrics[f"top{k}"] == pytest.approx(expected, abs=0.11)  # 1 of 1400 images, by rounding


def test_validation_images_and_their_labels_do_not_bear_on_the_choice():
    usual = evaluate_sweep(PROTOCOL, FeatureProbe())
    features, labels = made(200, 1)
    for val in (
        (features, (labels + 1) % CLASSES),
        (features, torch.zeros_like(labels)),
        (torch.zeros_like(features), labels),
        (-1e3 * features, labels),
    ):
        found = evaluate_sweep(PROTOCOL, FeatureProbe(val=val))
        assert found.facts == usual.facts
        assert found.metrics["top1"] < usual.metrics["top1"] - 10


def test_a_rate_that_diverges_is_not_chosen_and_changes_nothing():
    assert evaluate_sweep(sweep_of(*LRS, 1e39), FeatureProbe()) == evaluate_sweep(PROTOCOL, FeatureProbe())
    with pytest.raises(BingoError, match=r"^evaluations: "):
        evaluate_sweep(sweep_of(1e39), FeatureProbe())


def test_too_few_images_to_hold_any_out_are_refused():
    assert evaluate_sweep(PROTOCOL, FeatureProbe(train=made(6, 0))).facts["held_out"] == CLASSES
    with pytest.raises(BingoError, match=r"^evaluations: linear-cached .*\b35\b"):
        evaluate_sweep(PROTOCOL, FeatureProbe(train=made(5, 0)))


FEATURES, LABELS = torch.eye(10), torch.zeros(10, dtype=torch.int64)


def heads_that_hit(*shares):
    """Classifiers of which each is right on its share of `FEATURES`."""
    weight = torch.zeros(len(shares), 2, 10)
    for head, hits in enumerate(shares):
        weight[head, 0, :hits] = 1  # class 0 wins where the feature of the image has a weight
        weight[head, 1, hits:] = 1
    return LinearHeads(weight, torch.zeros(len(shares), 2))


@pytest.mark.parametrize(("shares", "best"), [((3, 9, 5), 1), ((3, 9, 9, 9, 5), 1), ((0, 0), 0), ((1, 2, 10), 2)])
def test_the_best_classifier_is_chosen_and_of_equally_good_ones_the_first(shares, best):
    assert best_head(heads_that_hit(*shares), FEATURES, LABELS) == best


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("part", ["weight", "bias"])
def test_a_classifier_that_diverged_is_never_chosen(value, part):
    heads = heads_that_hit(10, 2, 10, 1)
    getattr(heads, part)[[0, 2], 0] = value
    assert best_head(heads, FEATURES, LABELS) == 1
    getattr(heads, part)[[1, 3], 1] = value
    with pytest.raises(BingoError, match=r"^evaluations: "):
        best_head(heads, FEATURES, LABELS)
