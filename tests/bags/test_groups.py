import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bingo.bags.groups import group_bags, label_bags, random_bags
from bingo.errors import BingoError


def rows(bags):
    return [bags.members[low:high].tolist() for low, high in zip(bags.indptr[:-1], bags.indptr[1:], strict=True)]


@settings(deadline=None, max_examples=100)
@given(group=st.lists(st.integers(-3, 10**12) | st.integers(0, 3), min_size=1, max_size=30))
def test_a_group_has_all_images_of_its_number_in_order(group):
    bags = group_bags(np.array(group))
    assert bags.includes_anchor
    assert sorted(map(tuple, rows(bags))) == sorted(
        {tuple(np.flatnonzero(np.array(group) == number)) for number in group}
    )
    for image in range(len(group)):
        assert image in rows(bags)[bags.bag_of[image]]


def test_an_image_without_a_label_is_a_bag_of_its_own():
    bags = label_bags(np.array([1, -1, 0, 1, -1, 1]))
    assert sorted(rows(bags)) == [[0, 3, 5], [1], [2], [4]]
    np.testing.assert_array_equal(bags.draw(np.array([1, 2, 4]), 0, 0), [1, 2, 4])


@pytest.mark.parametrize("count", [1, 5])
def test_label_bags_without_any_label_are_refused_with_a_remedy(count):
    with pytest.raises(BingoError, match=r"^bags: .*\blabel\b"):
        label_bags(np.full(count, -1))


@settings(deadline=None, max_examples=200)
@given(count=st.integers(2, 300), seed=st.integers(0, 2**32 - 1), data=st.data())
def test_random_groups_are_as_many_as_the_size_allows_and_as_equal_as_can_be(count, seed, data):
    size = data.draw(st.integers(1, count - 1))
    sizes = np.diff(random_bags(count, size, seed).indptr)
    assert len(sizes) == count // (size + 1)
    assert sizes.min() >= size + 1
    assert sizes.max() - sizes.min() <= 1
    assert sizes.sum() == count


def test_any_two_images_share_a_random_group_equally_often():
    count, seeds = 12, 2000
    together = np.zeros((count, count))
    for seed in range(seeds):
        bag_of = random_bags(count, 3, seed).bag_of
        together += bag_of[:, None] == bag_of
    pairs = together[np.triu_indices(count, 1)]
    # Three groups of four: an image meets 3 of 11 others; five standard deviations of a binomial on either side.
    expected, deviation = seeds * 3 / 11, np.sqrt(seeds * 3 / 11 * 8 / 11)
    assert abs(pairs - expected).max() < 5 * deviation
    assert pairs.std() > deviation / 3  # and yet they do differ, as draws do


@pytest.mark.parametrize("size", [10, 10**9])
def test_a_random_bag_as_large_as_the_dataset_is_refused(size):
    with pytest.raises(BingoError, match=rf"^bags: size {size} .*\b10\b"):
        random_bags(10, size, 0)
