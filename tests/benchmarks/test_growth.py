"""The exponents of growth."""

import pytest

from benchmarks import growth


def test_the_exponent_of_a_power_law_is_found():
    assert growth.power((1, 10, 100), [3.0, 300.0, 30_000.0]) == pytest.approx(2)
    assert growth.power((1, 10, 100), [3.0, 3.0, 3.0]) == pytest.approx(0)
