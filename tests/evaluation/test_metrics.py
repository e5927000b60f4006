import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import top_k_accuracy_score

from bingo.evaluation.metrics import accuracy, one_hot_votes


@settings(max_examples=30, deadline=None)
@given(st.integers(3, 12), st.integers(1, 40), st.integers(0, 2**32 - 1))
def test_accuracy_is_that_of_scikit_learn(classes, count, seed):
    rng = np.random.default_rng(seed)
    scores = rng.permuted(np.tile(np.arange(classes, dtype=np.float64), (count, 1)), axis=1)  # no two are equal
    labels = rng.integers(classes, size=count)
    found = accuracy(torch.from_numpy(scores), torch.from_numpy(labels))
    for metric, value in found.items():
        k = int(metric.removeprefix("top"))
        assert value == pytest.approx(100 * top_k_accuracy_score(labels, scores, k=k, labels=range(classes)))


@pytest.mark.parametrize(("classes", "metrics"), [(2, ["top1"]), (5, ["top1"]), (6, ["top1", "top5"])])
def test_top5_is_left_out_where_it_cannot_fail(classes, metrics):
    assert list(accuracy(torch.rand(3, classes), torch.zeros(3, dtype=torch.int64))) == metrics


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 6), st.integers(1, 6), st.integers(1, 5), st.integers(0, 2**32 - 1))
def test_votes_are_summed_per_class(rows, k, classes, seed):
    rng = np.random.default_rng(seed)
    labels, weights = rng.integers(classes, size=(rows, k)), rng.random((rows, k))
    expected = [
        [sum(w for label, w in zip(*row, strict=True) if label == c) for c in range(classes)]
        for row in zip(labels, weights, strict=True)
    ]
    found = one_hot_votes(torch.from_numpy(labels), torch.from_numpy(weights), classes)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-12)
