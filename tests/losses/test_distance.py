import pytest
import torch

from bingo.losses.distance import squared_distance


@pytest.mark.parametrize(("batch", "dim"), [(1, 1), (1, 5), (7, 2), (16, 128)])
def test_squared_distance_is_summed_over_dimensions_and_averaged_over_the_batch(batch, dim, units, gradients, close):
    def literal(student, teacher):
        total = 0
        for s, t in zip(student, teacher, strict=True):
            total = total + sum((a - b) ** 2 for a, b in zip(s, t, strict=True))
        return total / batch

    pair = [units(batch, dim), units(batch, dim)]
    close(gradients(squared_distance, pair), gradients(literal, pair), 1e-12)


def test_unit_vectors_are_apart_by_two_less_twice_their_cosine(units):
    student, teacher = units(6, 9), units(6, 9)
    torch.testing.assert_close(squared_distance(student, teacher), 2 - 2 * (student * teacher).sum(1).mean())
    assert float(squared_distance(student, student)) == 0
    assert float(squared_distance(student, -student)) == pytest.approx(4)
