import numpy as np
import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier

from bingo import neighbours
from bingo.errors import BingoError
from bingo.evaluation.knn import knn_accuracy
from bingo.evaluation.protocols import Knn


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


@pytest.mark.parametrize("k", [1, 5, 9])
def test_top1_is_that_of_scikit_learn(k):
    train, train_labels, val, val_labels = random_data(classes=2)  # of two classes and an odd k, one has more votes
    reference = KNeighborsClassifier(k, metric="cosine", algorithm="brute").fit(train, train_labels)
    expected = 100 * reference.score(val, val_labels)
    assert 50 < expected < 95
    assert knn_accuracy(Knn(k, ""), train, train_labels, val, val_labels, 2) == {"top1": pytest.approx(expected)}


def test_votes_rank_classes_and_ties_go_to_the_larger_summed_similarity():
    k, classes = 20, 6
    train, train_labels, val, _ = random_data(classes, noise=4)
    rankings, asked, tied = [], [], 0
    for i, query in enumerate(val):
        nearest, similarities = neighbours_of(query, train, k)
        ranked, count = ranking([int(train_labels[n]) for n in nearest], similarities)
        if len(ranked) == classes:  # classes without votes stand in no particular order
            asked.append(i)
            rankings.append(ranked)
            tied += count[ranked[0]] == count[ranked[1]]
    assert len(asked) > 50
    assert tied > 10
    # If place 1 is taken for the truth, every image is right, and if place 2 is, none.
    for place, expected in ((0, 100), (1, 0)):
        labels = torch.tensor(rankings)[:, place]
        found = knn_accuracy(Knn(k, ""), train, train_labels, val[asked], labels, classes)
        assert found == {"top1": expected}, place


def test_no_similarity_outweighs_a_vote():
    # Two votes at -1 against one at +1.
    train = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [-1.0, 0.0]])
    labels = torch.tensor([0, 1, 1])
    query = torch.tensor([[100.0, 0.0]])
    assert knn_accuracy(Knn(3, ""), train, labels, query, torch.tensor([1]), 2) == {"top1": 100.0}


def test_the_length_of_features_and_their_order_do_not_matter():
    train, train_labels, val, val_labels = random_data(7)
    expected = knn_accuracy(Knn(10, ""), train, train_labels, val, val_labels, 7)
    order = torch.from_numpy(np.random.default_rng(1).permutation(len(train)))
    scaled = train[order] * torch.linspace(0.5, 2, len(train))[:, None]
    assert knn_accuracy(Knn(10, ""), scaled, train_labels[order], 3 * val, val_labels, 7) == expected


def test_the_size_of_blocks_does_not_matter(monkeypatch):
    data = random_data(7)
    expected = knn_accuracy(Knn(10, ""), *data, 7)
    monkeypatch.setattr(neighbours, "_BLOCK", 7)
    assert knn_accuracy(Knn(10, ""), *data, 7) == expected


def test_features_are_left_as_they_were():
    data = random_data(3)
    before = [values.clone() for values in data]
    knn_accuracy(Knn(10, ""), *data, 3)
    assert all(torch.equal(values, old) for values, old in zip(data, before, strict=True))


def test_fewer_images_than_neighbours_are_refused():
    train, train_labels, val, val_labels = random_data(3, train=10)
    knn_accuracy(Knn(10, ""), train, train_labels, val, val_labels, 3)
    with pytest.raises(BingoError, match=r"knn-10 needs 10 labelled images, there are 9$"):
        knn_accuracy(Knn(10, ""), train[1:], train_labels[1:], val, val_labels, 3)
