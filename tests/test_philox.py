import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from bingo.philox import Stream, permutation, philox, uniform

WORD = st.integers(0, 2**32 - 1)
FEW = settings(deadline=None, max_examples=40)


def reference(counter, key):
    """Philox4x32-10 as the paper has it, with Python's integers."""
    (x0, x1, x2, x3), (k0, k1) = counter, key
    for _ in range(10):
        first, second = 0xD2511F53 * x0, 0xCD9E8D57 * x2
        x0, x1, x2, x3 = (
            (second // 2**32) ^ x1 ^ k0,
            second % 2**32,
            (first // 2**32) ^ x3 ^ k1,
            first % 2**32,
        )
        k0, k1 = (k0 + 0x9E3779B9) % 2**32, (k1 + 0xBB67AE85) % 2**32
    return [x0, x1, x2, x3]


# Random123's kat_vectors, philox4x32 with ten rounds.
@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [
        ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
        ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
        ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
    ],
)
def test_philox_gives_the_known_answers_of_random123(counter, key, expected):
    def words(text):
        return [int(word, 16) for word in text.split()]

    found = philox(np.array(words(counter), dtype=np.uint64), tuple(words(key)))
    assert found.tolist() == words(expected)


@FEW
@given(WORD, st.sampled_from(Stream), WORD, WORD, st.integers(0, 2**16 - 1), st.integers(1, 40))
def test_uniform_is_philox_of_index_epoch_view_and_block_under_seed_and_stream(seed, stream, index, epoch, view, draws):
    words = [word for block in range(10) for word in reference((index, epoch, view, block), (seed, int(stream)))]
    found = uniform(seed, stream, [index], epoch, view, draws)
    assert found.tolist() == [[word / 2**32 for word in words[:draws]]]


@FEW
@given(st.lists(WORD, min_size=1, max_size=20), st.data())
def test_uniform_numbers_of_an_index_do_not_depend_on_the_other_indices(indices, data):
    asked = data.draw(st.lists(st.sampled_from(indices), min_size=1, max_size=20))
    together = dict(zip(indices, uniform(7, Stream.VIEW, indices, 3, 1, 6).tolist(), strict=True))
    assert uniform(7, Stream.VIEW, asked, 3, 1, 6).tolist() == [together[index] for index in asked]


@pytest.mark.parametrize("position", range(5))
def test_every_argument_of_uniform_changes_every_number(position):
    def numbers(seed, stream, index, epoch, view):
        return uniform(seed, stream, [index], epoch, view, 8)

    base, others = (5, Stream.VIEW, 11, 2, 1), (6, Stream.ORDER, 12, 3, 0)
    other = [*base[:position], others[position], *base[position + 1 :]]
    assert (numbers(*base) != numbers(*other)).all()


def test_uniform_numbers_are_uniform_and_those_of_neighbours_unrelated():
    numbers = uniform(0, Stream.VIEW, np.arange(20_000), 0, 0, 4)
    assert numbers.min() >= 0
    assert numbers.max() < 1
    assert stats.kstest(numbers.ravel(), "uniform").pvalue > 1e-3
    neighbours = np.hstack([numbers[:-1], numbers[1:], uniform(0, Stream.VIEW, np.arange(19_999), 1, 0, 4)])
    correlation = np.corrcoef(neighbours.T) - np.eye(12)
    assert abs(correlation).max() < 5 / np.sqrt(len(neighbours))


@pytest.mark.parametrize("n", [0, 1, 2, 5000])
def test_a_permutation_holds_every_number_once(n):
    assert sorted(permutation(1, Stream.ORDER, 0, n).tolist()) == list(range(n))


def test_permutation_depends_on_seed_stream_and_epoch_alone():
    keys = list(itertools.product((0, 1), (Stream.ORDER, Stream.SUBSET), (0, 1)))
    assert len({tuple(permutation(*key, 50)) for key in keys}) == 8
    assert permutation(*keys[0], 50).tolist() == permutation(*keys[0], 50).tolist()


def test_every_order_is_equally_likely():
    codes = [tuple(permutation(0, Stream.ORDER, epoch, 4).tolist()) for epoch in range(2400)]
    counts = np.unique(codes, axis=0, return_counts=True)[1]
    assert len(counts) == 24
    assert stats.chisquare(counts).pvalue > 1e-3


def test_a_stream_keeps_its_number_because_results_depend_on_it():
    numbers = {"VIEW": 0, "ORDER": 1, "MEMBER": 2, "SUBSET": 3, "SHEET": 4, "TEACHER_VIEW": 5, "CUTMIX": 6, "GROUP": 7}
    found = {name: int(stream) for name, stream in Stream.__members__.items()}
    assert {name: found[name] for name in numbers} == numbers
    assert len(set(found.values())) == len(found)
