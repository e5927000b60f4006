import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bingo.errors import BingoError, nearest


@settings(max_examples=50, deadline=None)
@given(st.text())
def test_a_message_is_one_line_that_keeps_its_words(text):
    line = str(BingoError(text))
    assert len(line.splitlines()) <= 1
    assert line.split() == text.split()


@pytest.mark.parametrize(
    ("name", "known", "named"),
    [("batchsize", ["batch_size", "lr"], "'batch_size'"), ("xyz", ["lr", "epochs"], "epochs, lr"), ("xyz", [], "none")],
)
def test_nearest_proposes_the_closest_name_or_lists_what_is_known(name, known, named):
    assert named in nearest(name, known)
