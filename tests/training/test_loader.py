import multiprocessing

import pytest

from bingo.errors import BingoError
from bingo.training.loader import load


class Squares:
    """Squares of numbers, among which -1 is the user's fault and a text the software's."""

    def __getitem__(self, place):
        if place == -1:
            raise BingoError("file.png: cannot be read")
        return place**2


@pytest.mark.parametrize("workers", [0, 2])
def test_items_come_in_order_until_a_users_fault(workers):
    found = load(Squares(), [3, 1, 2, -1, 4], workers)
    assert [next(found) for _ in range(3)] == [9, 1, 4]
    with pytest.raises(BingoError, match=r"^file\.png: cannot be read$"):
        next(found)


def test_a_bug_in_a_worker_keeps_its_traceback_and_leaves_no_process():
    with pytest.raises(RuntimeError, match=r"__getitem__(.|\n)*TypeError") as caught:
        list(load(Squares(), [1, "text"], 1))
    # Workers ignore signals to end: if they were left behind, this process would wait for them for ever.
    assert caught.value.__traceback__ is not None
    assert multiprocessing.active_children() == []
