from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bingo.artifacts.hdf5 import write_hdf5
from bingo.artifacts.shards import part_rows, require_complete_shards, shard_attributes
from bingo.errors import BingoError

ORIGIN = {"settings": {"size": 3}, "inputs": {"dataset": "a"}}


@given(count=st.integers(0, 500), parts=st.integers(1, 12), unit=st.integers(1, 90))
def test_parts_are_all_rows_in_order_cut_at_whole_units_and_alike(count, parts, unit):
    rows = [part_rows(f"{number}-of-{parts}", count, unit) for number in range(1, parts + 1)]
    assert [row for part in rows for row in part] == list(range(count))
    assert all(part.start % unit == 0 for part in rows if len(part))
    assert all(before.stop == after.start for before, after in pairwise(rows))
    sizes = [-(-len(part) // unit) for part in rows]
    assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize("part", ["", "3", "0-of-2", "3-of-2", "1-of-0", "a-of-b", "-1-of-2"])
def test_a_part_that_does_not_exist_is_refused(part):
    with pytest.raises(BingoError, match=r"^--part: "):
        part_rows(part, 10, 2)


@pytest.fixture
def write(tmp_path):
    def write(name, rows, origin=ORIGIN):
        with write_hdf5(tmp_path / name, shard_attributes("thing", rows, origin)):
            pass
        return tmp_path / name

    return write


def test_shards_are_taken_in_the_order_of_rows_without_the_empty(write):
    paths = [write("c", range(7, 9)), write("e", range(0)), write("a", range(4)), write("b", range(4, 7))]
    shards = require_complete_shards(paths, "thing", 9, ORIGIN)
    assert [shard.rows for shard in shards] == [range(4), range(4, 7), range(7, 9)]


@pytest.mark.parametrize(
    ("ranges", "named"),
    [
        ([range(4), range(5, 9)], 1),
        ([range(4), range(3, 9)], 1),
        ([range(2, 9)], 0),
        ([range(4), range(4, 10)], 1),
        ([range(4), range(4, 8)], "--shards"),
    ],
)
def test_shards_that_are_not_all_rows_are_refused(ranges, named, write):
    paths = [write(f"{number}", rows) for number, rows in enumerate(ranges)]
    with pytest.raises(BingoError, match=f"^{named if isinstance(named, str) else paths[named]}: "):
        require_complete_shards(paths, "thing", 9, ORIGIN)


def test_shards_of_other_settings_or_of_another_kind_are_refused(write):
    good, other = write("a", range(4)), write("b", range(4, 9), {**ORIGIN, "settings": {"size": 4}})
    with pytest.raises(BingoError, match=f"^{other}: "):
        require_complete_shards([good, other], "thing", 9, ORIGIN)
    with pytest.raises(BingoError, match=f"^{good}: .*other"):
        require_complete_shards([good], "other", 4, ORIGIN)
