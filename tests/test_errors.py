from hypothesis import given, settings
from hypothesis import strategies as st

from bingo.errors import BingoError, nearest


@settings(max_examples=50, deadline=None)
@given(st.text())
def test_a_message_is_one_line_that_keeps_its_words(text):
    line = str(BingoError(text))
    assert len(line.splitlines()) <= 1
    assert line.split() == text.split()


def test_nearest_proposes_the_closest_name():
    assert nearest("batchsize", ["batch_size", "lr"]) == "; did you mean 'batch_size'?"


def test_nearest_lists_what_is_known_where_nothing_is_close():
    assert nearest("xyz", ["lr", "epochs"]) == "; known: epochs, lr"


def test_nearest_says_that_nothing_is_defined():
    assert nearest("xyz", []) == "; none is defined"
