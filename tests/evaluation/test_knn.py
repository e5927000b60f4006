from functools import cache

import numpy as np
import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import normalize

from bingo.bags import neighbours
from bingo.errors import BingoError
from bingo.evaluation.knn import knn_accuracy
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
    """Where place number ``place``, from 1, has distinctly more of the vote than the next one, or that has none."""
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


@pytest.mark.parametrize("name", ["knn-10", "knn-dino-10"])
def test_a_class_without_a_vote_never_counts(name):
    # Ten neighbours of two classes; of eight classes the others have none.
    train, train_labels = torch.eye(4).repeat(5, 1), torch.tensor([0, 1, 6, 7]).repeat(5)
    query = torch.tensor([[1.0, 0.9, 0.0, 0.0]])
    for label in range(8):
        found = knn_accuracy(PROTOCOLS[name], train, train_labels, query, torch.tensor([label]), 8)
        assert found == {"top1": 100.0 * (label == 0), "top5": 100.0 * (label in (0, 1))}


def test_a_near_neighbour_outweighs_two_that_are_farther_by_dinos_vote_and_not_by_majority():
    angles = torch.tensor([0.1, 0.5, 0.5])  # cosines 0.995, 0.878: exp(0.117 / 0.07) = 5.3 times the weight
    train, labels = torch.stack([angles.cos(), angles.sin()], 1), torch.tensor([0, 1, 1])
    query, truth = torch.tensor([[1.0, 0.0]]), torch.tensor([0])
    assert knn_accuracy(Knn(3, "", temperature=0.07), train, labels, query, truth, 2) == {"top1": 100.0}
    assert knn_accuracy(Knn(3, "", temperature=0.2), train, labels, query, truth, 2) == {"top1": 0.0}
    assert knn_accuracy(Knn(3, ""), train, labels, query, truth, 2) == {"top1": 0.0}


def neighbours_of(query, train, k):
    """Return the k rows most similar by cosine and their similarities, the naive way."""
    query, train = query.double(), train.double()
    cosine = [float(row @ query / row.norm() / query.norm()) for row in train]
    nearest = sorted(range(len(train)), key=lambda i: -cosine[i])[:k]
    return nearest, [cosine[i] for i in nearest]


def ranking(labels, similarities):
    """Return the classes that have votes, best first: by their number, then by summed similarity."""
    classes = set(labels)
    count = {c: labels.count(c) for c in classes}
    total = {c: sum(s for label, s in zip(labels, similarities, strict=True) if label == c) for c in classes}
    return sorted(classes, key=lambda c: (count[c], total[c]), reverse=True), count


def test_votes_rank_classes_and_ties_go_to_the_larger_summed_similarity():
    k, classes = 20, 6
    train, train_labels, val, _ = random_data(classes, noise=4)
    rankings, asked, tied = [], [], 0
    for i, query in enumerate(val):
        nearest, similarities = neighbours_of(query, train, k)
        ranked, count = ranking([int(train_labels[n]) for n in nearest], similarities)
        if len(ranked) == classes:
            asked.append(i)
            rankings.append(ranked)
            tied += count[ranked[0]] == count[ranked[1]]
    assert len(asked) > 50
    assert tied > 10
    # If place 1 is taken for the truth, every image is right; place 2 is among five, the last place is not.
    for place, expected in ((0, (100, 100)), (1, (0, 100)), (4, (0, 100)), (5, (0, 0))):
        labels = torch.tensor(rankings)[:, place]
        found = knn_accuracy(Knn(k, ""), train, train_labels, val[asked], labels, classes)
        assert tuple(found.values()) == expected, place


def test_no_similarity_outweighs_a_vote():
    # Two votes at -1 against one at +1.
    train = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [-1.0, 0.0]])
    labels = torch.tensor([0, 1, 1])
    query = torch.tensor([[100.0, 0.0]])
    assert knn_accuracy(Knn(3, ""), train, labels, query, torch.tensor([1]), 2) == {"top1": 100.0}


@pytest.mark.parametrize("name", ["knn-10", "knn-dino-10"])
def test_the_length_of_features_and_their_order_do_not_matter(name):
    train, train_labels, val, val_labels = random_data(7)
    expected = knn_accuracy(PROTOCOLS[name], train, train_labels, val, val_labels, 7)
    order = torch.from_numpy(np.random.default_rng(1).permutation(len(train)))
    scaled = train[order] * torch.linspace(0.5, 2, len(train))[:, None]
    assert knn_accuracy(PROTOCOLS[name], scaled, train_labels[order], 3 * val, val_labels, 7) == expected


def test_the_size_of_blocks_does_not_matter(monkeypatch):
    data = random_data(7)
    expected = knn_accuracy(Knn(10, ""), *data, 7)
    monkeypatch.setattr(neighbours, "QUERY_BLOCK", 7)
    assert knn_accuracy(Knn(10, ""), *data, 7) == expected


def test_features_are_left_as_they_were():
    data = random_data(3)
    before = [values.clone() for values in data]
    knn_accuracy(Knn(10, ""), *data, 3)
    assert all(torch.equal(values, old) for values, old in zip(data, before, strict=True))


@pytest.mark.parametrize(("k", "metrics"), [(1, ["top1"]), (2, ["top1", "top5"])])
def test_a_single_neighbour_has_no_top5(k, metrics):
    assert list(knn_accuracy(Knn(k, ""), *random_data(7), 7)) == metrics


def test_fewer_images_than_neighbours_are_refused():
    train, train_labels, val, val_labels = random_data(3, train=10)
    knn_accuracy(Knn(10, ""), train, train_labels, val, val_labels, 3)
    with pytest.raises(BingoError, match=r"k 10 needs as many labelled images, there are 9$"):
        knn_accuracy(Knn(10, ""), train[1:], train_labels[1:], val, val_labels, 3)
