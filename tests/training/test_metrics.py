import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bingo.training.metrics import accuracy, class_votes


@pytest.mark.parametrize(("classes", "metrics"), [(1, ["top1"]), (5, ["top1"]), (6, ["top1", "top5"])])
def test_top5_is_left_out_where_it_cannot_fail(classes, metrics):
    assert list(accuracy(torch.rand(3, classes), torch.zeros(3, dtype=torch.int64))) == metrics


@settings(max_examples=30, deadline=None)
@given(st.integers(6, 12), st.integers(1, 40), st.integers(0, 2**32 - 1))
def test_a_class_of_minus_infinity_is_never_among_the_best(classes, count, seed):
    rng = np.random.default_rng(seed)
    scores = rng.permuted(np.tile(np.arange(classes, dtype=np.float64), (count, 1)), axis=1)
    scores[rng.random(scores.shape) < 0.7] = -np.inf
    labels = rng.integers(classes, size=count)
    places = [sorted((-s, c) for c, s in enumerate(row) if s > -np.inf) for row in scores]  # best first
    found = accuracy(torch.from_numpy(scores), torch.from_numpy(labels))
    for metric, k in (("top1", 1), ("top5", 5)):
        hits = [label in [c for _, c in place[:k]] for label, place in zip(labels, places, strict=True)]
        assert found[metric] == pytest.approx(100 * np.mean(hits))


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 6), st.integers(1, 6), st.integers(1, 5), st.integers(0, 2**32 - 1))
def test_votes_are_summed_per_class_and_a_class_without_one_has_minus_infinity(rows, k, classes, seed):
    rng = np.random.default_rng(seed)
    labels, weights = rng.integers(classes, size=(rows, k)), rng.random((rows, k)) - 0.5
    expected = [
        [
            sum(w for label, w in zip(*row, strict=True) if label == c) if c in row[0] else -np.inf
            for c in range(classes)
        ]
        for row in zip(labels, weights, strict=True)
    ]
    found = class_votes(torch.from_numpy(labels), torch.from_numpy(weights), classes)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-9, atol=1e-12)
