import math
from functools import cache

import numpy as np
import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import normalize

from bingo.bags import neighbours
from bingo.errors import BingoError
from bingo.evaluation import knn
from bingo.evaluation.knn import evaluate_knn, knn_accuracy
from bingo.study.protocols import PROTOCOLS, Knn

DINO = [f"knn-dino-{k}" for k in (10, 20, 100, 200)]
MAJORITY = ["knn-1", "knn-10", "knn-20"]


@cache
def random_data(classes, train=150, val=120, dim=6, noise=1.5):
    """Features that tell a little about the class, of any length: train, its labels, val, its labels."""
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(classes, dim))
    parts = []
    for count in (train, val):
        labels = rng.integers(classes, size=count)
        features = (centres[labels] + noise * rng.normal(size=(count, dim))) * rng.uniform(0.1, 10, (count, 1))
        parts += [torch.from_numpy(features.astype(np.float32)), torch.from_numpy(labels)]
    return parts


def dino_weights(distance):
    """exp(cosine / 0.07), where the distance of unit vectors is sqrt(2 - 2 cosine)."""
    return np.exp((1 - distance**2 / 2) / 0.07)


def reference(name, data, classes):
    """scikit-learn's share of the vote for each class: (M, classes)."""
    train, train_labels, val, _ = (part.double().numpy() for part in data)
    weights = dino_weights if name in DINO else "uniform"
    classifier = KNeighborsClassifier(PROTOCOLS[name].k, weights=weights, algorithm="brute")
    classifier.fit(normalize(train), train_labels)
    share = np.zeros((len(val), classes))
    share[:, classifier.classes_.astype(int)] = classifier.predict_proba(normalize(val))
    return share


def clear(share, place):
    """Where place ``place``, from 1, has distinctly more of the vote than the next one, or the next one has none."""
    ordered = -np.sort(-share, 1)
    return (ordered[:, place - 1] - ordered[:, place] > 1e-4) | (ordered[:, place] == 0)


@pytest.mark.parametrize("name", MAJORITY + DINO)
def test_top1_is_that_of_scikit_learn(name):
    classes = 12
    train, train_labels, val, val_labels = data = random_data(classes, train=600, val=300)
    share = reference(name, data, classes)
    rows = clear(share, 1)
    assert rows.mean() > (0.99 if name in DINO else 0.7)
    predicted = share.argmax(1)[rows]
    arguments = (PROTOCOLS[name], train, train_labels, val[rows])
    expected = 100 * np.mean(predicted == val_labels.numpy()[rows])
    assert 20 < expected < 80
    assert knn_accuracy(*arguments, val_labels[rows], classes)["top1"] == pytest.approx(expected)
    # With the reference's prediction as the truth every image is right, and with another class none.
    assert knn_accuracy(*arguments, torch.from_numpy(predicted), classes)["top1"] == 100
    assert knn_accuracy(*arguments, torch.from_numpy((predicted + 1) % classes), classes)["top1"] == 0


# With twenty classes fewer than five have a vote of ten neighbours at times, and with six always more.
@pytest.mark.parametrize("classes", [6, 12, 20])
@pytest.mark.parametrize("name", [name for name in MAJORITY + DINO if name != "knn-1"])
def test_top5_is_that_of_scikit_learn_among_classes_with_votes(name, classes):
    train, train_labels, val, val_labels = data = random_data(classes, train=600, val=600, noise=1.0)
    share = reference(name, data, classes)
    rows = clear(share, 5)
    assert rows.sum() > 50
    best = np.argsort(-share, 1)[:, :5]
    labels = val_labels.numpy()
    hits = ((best == labels[:, None]) & (np.take_along_axis(share, best, 1) > 0)).any(1)
    found = knn_accuracy(PROTOCOLS[name], train, train_labels, val[rows], val_labels[rows], classes)
    assert found["top5"] == pytest.approx(100 * hits[rows].mean())
    assert hits[rows].mean() < 1


@pytest.mark.parametrize(
    ("angles", "labels", "ranking"),
    [
        # Two votes each; the similarities of class 1 are closer to each other, and their sum is larger.
        ([0.1, 0.6, 0.3, 0.3], [0, 0, 1, 1], [1, 0]),
        # Two votes of similarity -1 against one of +1.
        ([0.0, math.pi, math.pi], [0, 1, 1], [1, 0]),
    ],
)
def test_votes_rank_classes_and_ties_go_to_the_larger_summed_similarity(angles, labels, ranking):
    train = torch.tensor([[math.cos(angle), math.sin(angle)] for angle in angles])
    query, labels = torch.tensor([[1.0, 0.0]]), torch.tensor(labels)
    for place, label in enumerate(ranking):
        found = knn_accuracy(Knn(len(angles), ""), train, labels, query, torch.tensor([label]), 2)
        assert found["top1"] == (100.0 if place == 0 else 0.0)


@pytest.mark.parametrize("name", ["knn-10", "knn-dino-10"])
def test_neither_the_length_nor_the_order_of_features_nor_the_size_of_blocks_matters(name, monkeypatch):
    train, train_labels, val, val_labels = random_data(7)
    expected = knn_accuracy(PROTOCOLS[name], train, train_labels, val, val_labels, 7)
    order = torch.from_numpy(np.random.default_rng(1).permutation(len(train)))
    scaled = train[order] * torch.linspace(0.5, 2, len(train))[:, None]
    before = scaled.clone()
    monkeypatch.setattr(neighbours, "QUERY_BLOCK", 7)
    assert knn_accuracy(PROTOCOLS[name], scaled, train_labels[order], 3 * val, val_labels, 7) == expected
    assert torch.equal(scaled, before)


@pytest.mark.parametrize(("k", "metrics"), [(1, ["top1"]), (2, ["top1", "top5"])])
def test_a_single_neighbour_has_no_top5(k, metrics):
    assert list(knn_accuracy(Knn(k, ""), *random_data(7), 7)) == metrics


def test_fewer_images_than_neighbours_are_refused():
    train, train_labels, val, val_labels = random_data(3, train=10)
    knn_accuracy(Knn(10, ""), train, train_labels, val, val_labels, 3)
    with pytest.raises(BingoError, match=r"^evaluations: .*\b10\b.*\b9\b"):
        knn_accuracy(Knn(10, ""), train[1:], train_labels[1:], val, val_labels, 3)


@pytest.mark.parametrize(("name", "interpolation"), [("knn-10", "bilinear"), ("knn-dino-10", "bicubic")])
def test_features_are_those_of_centre_views_resized_as_the_protocol_says(
    name, interpolation, probe, features, monkeypatch
):
    compared = []
    monkeypatch.setattr(knn, "knn_accuracy", lambda *arguments: compared.extend(arguments[1:5]) or {})
    evaluate_knn(PROTOCOLS[name], probe())
    for found, values in zip(
        compared, (*features("train", interpolation), *features("val", interpolation)), strict=True
    ):
        torch.testing.assert_close(found, values, atol=1e-4, rtol=1e-4)
