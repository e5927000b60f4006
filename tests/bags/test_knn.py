import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bingo.bags import neighbours
from bingo.bags.knn import knn_bags, without_self
from bingo.errors import BingoError


def random_features(count, dim, seed, copies=1):
    """Random vectors, each of which occurs `copies` times."""
    draw = np.random.default_rng(seed)
    distinct = draw.normal(size=(-(-count // copies), dim)).astype(np.float32) * 3
    return draw.permutation(np.repeat(distinct, copies, axis=0)[:count])


def brute_force(features, size):
    """Members and similarities of each bag, in float64."""
    unit = features.astype(np.float64)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    similarity = unit @ unit.T
    np.fill_diagonal(similarity, -np.inf)
    members = np.argsort(-similarity, axis=1)[:, :size]
    return members, np.take_along_axis(similarity, members, 1)


@settings(deadline=None, max_examples=60)
@given(
    count=st.integers(2, 40),
    copies=st.integers(1, 12),
    seed=st.integers(0, 10_000),
    block=st.integers(1, 50),
    data=st.data(),
)
def test_bags_are_well_formed_whatever_repeats(count, copies, seed, block, data):
    size = data.draw(st.integers(1, count - 1))
    features = random_features(count, 4, seed, copies)
    expected = brute_force(features, size)[1]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(neighbours, "QUERY_BLOCK", block)
        bags = knn_bags(features.copy(), size)
    members = bags.members.reshape(count, size)
    assert not bags.includes_anchor
    np.testing.assert_array_equal(bags.bag_of, np.arange(count))
    np.testing.assert_array_equal(np.diff(bags.indptr), size)
    assert bags.indptr[0] == 0
    assert members.dtype == bags.indptr.dtype == bags.bag_of.dtype == np.int64
    assert members.min() >= 0
    assert members.max() < count
    assert (members != np.arange(count)[:, None]).all()
    assert all(len(set(row)) == size for row in members)
    # Equal images are interchangeable, so only similarities are determined.
    np.testing.assert_allclose(bags.similarity.reshape(count, size), expected, atol=2e-6)
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    products = np.einsum("nd,nsd->ns", unit, unit[members])
    np.testing.assert_allclose(bags.similarity.reshape(count, size), products, atol=2e-6)


def test_without_self_drops_the_image_wherever_it_stands_and_else_the_last():
    members = np.array([[4, 7, 9], [7, 5, 9], [7, 9, 6], [1, 2, 3]])
    similarity = np.arange(12, dtype=np.float32).reshape(4, 3)
    kept_similarity, kept = without_self(similarity, members, np.arange(4, 8))
    np.testing.assert_array_equal(kept, [[7, 9], [7, 9], [7, 9], [1, 2]])
    np.testing.assert_array_equal(kept_similarity, [[1, 2], [3, 5], [6, 7], [9, 10]])


@pytest.mark.parametrize("size", [10, 1000])
def test_a_bag_as_large_as_the_dataset_is_refused(size):
    with pytest.raises(BingoError, match=rf"^bags: size {size} .*\b10\b"):
        knn_bags(random_features(10, 3, seed=0), size)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_features_that_are_not_finite_are_refused(value):
    features = random_features(10, 3, seed=0)
    features[4, 1] = value
    with pytest.raises(BingoError, match="finite"):
        knn_bags(features, 3)
