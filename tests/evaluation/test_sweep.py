import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, top_k_accuracy_score
from sklearn.preprocessing import StandardScaler

from bingo.errors import BingoError
from bingo.evaluation import sweep
from bingo.evaluation.linear import LinearHeads, cached_batches, train_linear
from bingo.evaluation.sweep import best_head, evaluate_sweep
from bingo.study.protocols import LinearSweep

CPU = torch.device("cpu")
DIM, CLASSES, PER_CLASS, EPOCHS = 8, 7, 60, 5
LRS = (1e-7, 0.003, 0.1)
PROTOCOL = LinearSweep(epochs=EPOCHS, batch_size=32, lrs=LRS, held_out=0.1, source="")


def made(count, seed, noise=1.2):
    """Features on scales far apart, and labels, ``count`` of each class."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.repeat(np.arange(CLASSES), count))
    centres = np.random.default_rng(9).normal(size=(CLASSES, DIM))
    features = (centres[labels] + noise * rng.normal(size=(len(labels), DIM))) * np.geomspace(0.1, 10, DIM) + 3
    return torch.from_numpy(features.astype(np.float32)), torch.from_numpy(labels)


class Given:
    """What the protocol asks of a probe, with features as given."""

    classes, seed, device = CLASSES, 4, CPU

    def __init__(self, train=None, val=None):
        self.train, self.train_labels = train or made(PER_CLASS, 0)
        self.val, self.val_labels = val or made(200, 1)
        self.asked = []

    def train_features(self, interpolation):
        self.asked.append(("train", interpolation))
        return self.train.clone()

    def val_features(self, interpolation):
        self.asked.append(("val", interpolation))
        return self.val.clone()


@pytest.fixture
def recorded(monkeypatch):
    """What the protocol trains on: rows of all batches of the first epoch, labels."""
    calls = SimpleNamespace()

    def train(batches, dim, classes, seed, rates, epochs, weight_decay, device):
        parts = list(batches(0))
        calls.rows, calls.labels = torch.cat([part for part, _ in parts]), torch.cat([part for _, part in parts])
        calls.settings = (dim, classes, seed, epochs, weight_decay)
        calls.rates = [rates(epoch) for epoch in range(epochs)]
        calls.heads = train_linear(batches, dim, classes, seed, rates, epochs, weight_decay, device)
        return calls.heads

    monkeypatch.setattr(sweep, "train_linear", train)
    return calls


@pytest.fixture
def held_out(monkeypatch):
    """Which training images are held out: found by what is trained on, since every row is another."""

    def find(given):
        seen = []
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sweep, "standardiser", lambda rows: seen.append(rows) or (lambda values: values))
            evaluate_sweep(PROTOCOL, given)
        (trained_on,) = seen
        return ~(given.train[:, None] == trained_on[None]).all(2).any(1)

    return find


def test_a_tenth_of_each_class_is_held_out_and_the_rest_trained_on(recorded, held_out):
    given = Given()
    out = held_out(given)
    assert torch.bincount(given.train_labels[out], minlength=CLASSES).tolist() == [PER_CLASS // 10] * CLASSES
    assert evaluate_sweep(PROTOCOL, given).facts["held_out"] == CLASSES * PER_CLASS // 10
    assert len(recorded.rows) == CLASSES * PER_CLASS * 9 // 10
    other = Given()
    other.seed = 5
    assert not torch.equal(held_out(other), out)


def test_features_are_standardised_by_the_images_that_are_trained_on(recorded, held_out):
    given = Given()
    kept = ~held_out(given)
    scaler, count = StandardScaler().fit(given.train[kept].double()), int(kept.sum())
    expected = torch.from_numpy(scaler.transform(given.train[kept].double()) * np.sqrt((count - 1) / count))
    evaluate_sweep(PROTOCOL, given)
    distance = torch.cdist(recorded.rows.double(), expected)
    assert distance.min(1).values.max() < 1e-4
    rows = distance.argmin(1)
    assert sorted(rows.tolist()) == list(range(count))
    assert torch.equal(recorded.labels, given.train_labels[kept][rows])
    assert recorded.settings == (DIM, CLASSES, 4, EPOCHS, 0.0)


def test_held_out_images_bear_on_nothing_but_the_choice(held_out):
    # With one learning rate there is no choice: then not even absurd held-out features may change a bit of the result.
    given, changed = Given(), Given()
    changed.train[held_out(given)] = 1e6
    one = LinearSweep(epochs=EPOCHS, batch_size=32, lrs=(0.01,), held_out=0.1, source="")
    first, second = evaluate_sweep(one, given), evaluate_sweep(one, changed)
    assert first == second
    assert 30 < first.metrics["top1"] < 90  # where any change of the classifier would show


def test_rates_fall_by_a_cosine_to_zero(recorded):
    evaluate_sweep(PROTOCOL, Given())
    for head, lr in enumerate(LRS):
        optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=lr)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=EPOCHS)
        for epoch in range(EPOCHS):
            assert recorded.rates[epoch][head] == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-9)
            optimizer.step()
            schedule.step()


def test_the_result_is_that_of_separate_classifiers_chosen_by_held_out_accuracy(held_out, plain_sgd):
    given = Given()
    out = held_out(given)
    scaler, count = StandardScaler().fit(given.train[~out].double()), int((~out).sum())

    def scaled(rows):
        return torch.from_numpy(scaler.transform(rows.double()) * np.sqrt((count - 1) / count)).float()

    batches = cached_batches(scaled(given.train[~out]), given.train_labels[~out], 32, given.seed)
    start = train_linear(batches, DIM, CLASSES, given.seed, lambda _: [0.0], 0, 0.0, CPU)
    found = []
    for lr in LRS:
        rates = [lr * (1 + math.cos(math.pi * epoch / EPOCHS)) / 2 for epoch in range(EPOCHS)]
        weight, bias = plain_sgd(batches, start.weight[0], start.bias[0], rates, 0.0)
        on_held_out = (scaled(given.train[out]) @ weight.T + bias).argmax(1)
        found.append((accuracy_score(given.train_labels[out], on_held_out), lr, weight, bias))
    assert len({share for share, *_ in found}) == len(LRS)
    _, lr, weight, bias = max(found, key=lambda entry: entry[0])
    scores = scaled(given.val) @ weight.T + bias
    measured = evaluate_sweep(PROTOCOL, given)
    assert measured.facts == {"lr": lr, "held_out": int(out.sum())}
    for k in (1, 5):
        expected = 100 * top_k_accuracy_score(given.val_labels, scores, k=k)
        assert measured.metrics[f"top{k}"] == pytest.approx(expected, abs=0.11)  # 1 of 1400 images, by rounding


def test_validation_images_and_their_labels_do_not_bear_on_the_choice():
    usual = evaluate_sweep(PROTOCOL, Given())
    features, labels = made(200, 1)
    for val in (
        (features, labels.roll(1)),
        (features, (labels + 1) % CLASSES),
        (features, torch.zeros_like(labels)),
        (torch.zeros_like(features), labels),
        (-1e3 * features, labels),
    ):
        found = evaluate_sweep(PROTOCOL, Given(val=val))
        assert found.facts == usual.facts
        assert found.metrics["top1"] < usual.metrics["top1"] - 10


def test_validation_labels_that_suit_another_rate_do_not_make_it_the_chosen_one(recorded, held_out):
    given = Given()
    scaler = StandardScaler().fit(given.train[~held_out(given)].double())
    values = torch.from_numpy(scaler.transform(given.val.double())).float()
    usual = evaluate_sweep(PROTOCOL, given)
    for head, logits in enumerate(recorded.heads(values)):
        suited = Given(val=(given.val, logits.argmax(0)))  # as one of the classifiers would have them
        found = evaluate_sweep(PROTOCOL, suited)
        assert found.facts == usual.facts
        assert (found.metrics["top1"] > 99.5) == (LRS[head] == usual.facts["lr"])


def test_held_out_images_decide(held_out):
    given, shifted = Given(), Given()
    out = held_out(given)
    usual = evaluate_sweep(PROTOCOL, given).facts["lr"]
    assert usual == LRS[2]
    # Show each held-out image of class c as one of class c + 1: what has learnt the classes is now always wrong.
    for label in range(CLASSES):
        wrong = given.train[~out & (given.train_labels == (label + 1) % CLASSES)].mean(0)
        shifted.train[out & (given.train_labels == label)] = wrong
    assert evaluate_sweep(PROTOCOL, shifted).facts["lr"] == LRS[0]


def test_a_rate_that_diverges_is_not_chosen_and_changes_nothing():
    absurd = LinearSweep(epochs=EPOCHS, batch_size=32, lrs=(*LRS, 1e39), held_out=0.1, source="")
    assert evaluate_sweep(absurd, Given()) == evaluate_sweep(PROTOCOL, Given())
    with pytest.raises(BingoError, match="the linear classifiers diverged"):
        evaluate_sweep(LinearSweep(epochs=EPOCHS, batch_size=32, lrs=(1e39,), held_out=0.1, source=""), Given())


def test_features_are_those_of_bilinear_centre_views_and_each_split_is_asked_for_once():
    given = Given()
    evaluate_sweep(PROTOCOL, given)
    assert sorted(given.asked) == [("train", "bilinear"), ("val", "bilinear")]


@pytest.mark.parametrize(("per_class", "enough"), [(1, False), (5, False), (6, True)])
def test_too_few_images_to_hold_any_out_are_refused(per_class, enough):
    given = Given(train=made(per_class, 0))
    if enough:
        assert evaluate_sweep(PROTOCOL, given).facts["held_out"] == CLASSES
        return
    message = f"holds out 10% of each class, and no class has enough of the {7 * per_class} images for one; take linear"
    with pytest.raises(BingoError, match=message):
        evaluate_sweep(PROTOCOL, given)


def heads_that_hit(*shares):
    """Classifiers of which each is right on the given share of `features_and_labels`."""
    weight = torch.zeros(len(shares), 2, 10)
    for head, hits in enumerate(shares):
        weight[head, 0, :hits] = 1  # class 0 wins where the feature of the image has a weight
        weight[head, 1, hits:] = 1
    return LinearHeads(weight, torch.zeros(len(shares), 2))


def features_and_labels():
    return torch.eye(10), torch.zeros(10, dtype=torch.int64)


def test_the_best_classifier_is_chosen_and_of_equally_good_ones_the_first():
    assert best_head(heads_that_hit(3, 9, 5), *features_and_labels()) == 1
    assert best_head(heads_that_hit(3, 9, 9, 9, 5), *features_and_labels()) == 1
    assert best_head(heads_that_hit(0, 0), *features_and_labels()) == 0
    assert best_head(heads_that_hit(1, 2, 10), *features_and_labels()) == 2


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("part", ["weight", "bias"])
def test_one_that_diverged_is_never_chosen(value, part):
    heads = heads_that_hit(10, 2, 10, 1)
    for head in (0, 2):
        getattr(heads, part)[head, 0] = value
    assert best_head(heads, *features_and_labels()) == 1
    for head in (1, 3):
        getattr(heads, part)[head, 1] = value
    with pytest.raises(BingoError, match="diverged"):
        best_head(heads, *features_and_labels())
