import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from bingo.losses.seed import seed_loss


def naive(student, teacher, queue, temperature, teacher_temperature):
    """The released code: both matrices of logits, the own embedding in column 0, and a soft cross-entropy."""
    s = torch.cat([(student * teacher).sum(1, keepdim=True), student @ queue.T], 1) / temperature
    t = torch.cat([(teacher * teacher).sum(1, keepdim=True), teacher @ queue.T], 1) / teacher_temperature
    return -(torch.softmax(t, 1) * torch.log_softmax(s, 1)).sum(1).mean()


@pytest.mark.parametrize("size", [1, 7, 4096])
@pytest.mark.parametrize(
    ("teacher_temperature", "dtype", "tolerance"),
    [(1e-4, torch.float32, 1e-4), (1e-4, torch.float64, 1e-9), (0.2, torch.float32, 1e-4)],
)
def test_equal_embeddings_give_the_log_of_one_plus_queue(size, teacher_temperature, dtype, tolerance, units):
    one = units(1, 4, dtype=dtype)
    loss = seed_loss(one.expand(3, -1), one.expand(3, -1), one.expand(size, -1), 0.2, teacher_temperature)
    assert float(loss) == pytest.approx(math.log(1 + size), abs=tolerance)


def test_a_sharp_teacher_in_float32_agrees_with_float64(units, gradients, close):
    # At 1e-4 a logit is 10,000, of which float32 has steps of 0.001; what matters is which embedding is the nearest.
    teacher, queue = units(8, 128), units(500, 128)
    queue[3] = F.normalize(teacher[0] + 1e-3 * units(1, 128)[0], dim=0)  # a twin of the first image
    queue[9] = teacher[1]  # and the second image itself
    student = units(8, 128)
    expected = gradients(lambda *tensors: naive(*tensors, 0.2, 1e-4), [student, teacher, queue], wanted=[0])
    single = [tensor.float() for tensor in (student, teacher, queue)]
    found = gradients(lambda *tensors: seed_loss(*tensors, 0.2, 1e-4), single, wanted=[0])
    assert all(value.isfinite().all() for value in found)
    close(found, expected, 2e-3)
    # Without rivals the teacher's distribution is all on the image itself: InfoNCE.
    rest = slice(2, None)
    alone = [*(tensor[rest] for tensor in single[:2]), single[2][20:]]
    logits = torch.cat([(alone[0] * alone[1]).sum(1, keepdim=True), alone[0] @ alone[2].T], 1) / 0.2
    info_nce = F.cross_entropy(logits, torch.zeros(6, dtype=torch.int64))
    torch.testing.assert_close(seed_loss(*alone, 0.2, 1e-4), info_nce, rtol=1e-5, atol=1e-5)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**20), st.integers(1, 6), st.integers(1, 40), st.integers(2, 12))
def test_seed_loss_knows_no_directions_and_no_order_of_the_queue_and_is_least_for_a_student_like_the_teacher(
    seed, batch, size, dim
):
    torch.manual_seed(seed)
    student, teacher, queue = (
        F.normalize(torch.randn(n, dim, dtype=torch.float64), dim=1) for n in (batch, batch, size)
    )
    value = seed_loss(student, teacher, queue, 0.2, 0.05)
    rotation = torch.linalg.qr(torch.randn(dim, dim, dtype=torch.float64)).Q
    rotated = seed_loss(student @ rotation, teacher @ rotation, queue @ rotation, 0.2, 0.05)
    torch.testing.assert_close(rotated, value)
    torch.testing.assert_close(seed_loss(student, teacher, queue[torch.randperm(size)], 0.2, 0.05), value)
    # A cross-entropy is at least the entropy, which a student equal to the teacher reaches at an equal temperature.
    assert seed_loss(teacher, teacher, queue, 0.2, 0.2) <= seed_loss(student, teacher, queue, 0.2, 0.2) + 1e-12


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
@pytest.mark.parametrize(("temperature", "teacher_temperature"), [(0.2, 0.1), (1.0, 1.0)])
@pytest.mark.parametrize(("batch", "size", "dim"), [(1, 1, 2), (4, 64, 16), (16, 1000, 128)])
def test_seed_loss_is_the_soft_cross_entropy_of_all_logits(
    batch, size, dim, temperature, teacher_temperature, dtype, tolerance, units, gradients, close
):
    inputs, temperatures = [units(n, dim) for n in (batch, batch, size)], (temperature, teacher_temperature)
    # Only the student's gradient matters: teacher and queue take none.
    expected = gradients(lambda *tensors: naive(*tensors, *temperatures), inputs, wanted=[0])
    single = [tensor.to(dtype) for tensor in inputs]
    found = gradients(lambda *tensors: seed_loss(*tensors, *temperatures), single, wanted=[0])
    assert all(value.dtype == dtype for value in found)
    close(found, expected, tolerance)
