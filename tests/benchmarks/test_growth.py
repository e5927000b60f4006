"""The lines of how time grows."""

import pytest

from benchmarks import growth
from benchmarks.measure import elapsed


def test_the_exponent_is_that_of_a_power():
    assert growth.power((1, 10, 100), [3.0, 300.0, 30_000.0]) == pytest.approx(2)
    assert growth.power((1, 10, 100), [3.0, 3.0, 3.0]) == pytest.approx(0)


@pytest.mark.parametrize(
    ("prepare", "amount"),
    [(growth.embedding, 60), (growth.epoch, 60), (growth.loss, 8), (growth.drawing, 2)],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_every_line_can_be_measured(prepare, amount):
    assert elapsed(prepare(amount)) > 0
