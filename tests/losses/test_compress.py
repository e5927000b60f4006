import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from bingo.losses.compress import compress_loss


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_a_student_like_its_teacher_costs_nothing(size, units):
    embeddings, queue = units(5, 8), units(size, 8)
    rotation = torch.linalg.qr(torch.randn(8, 8, dtype=torch.float64)).Q
    assert float(compress_loss(embeddings, embeddings, queue, queue, 0.04)) == pytest.approx(0, abs=1e-12)
    # Each space has directions of its own.
    alike = compress_loss(embeddings @ rotation, embeddings, queue @ rotation, queue, 0.04)
    assert float(alike) == pytest.approx(0, abs=1e-12)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**20), st.integers(1, 6), st.integers(1, 40))
def test_compress_loss_is_no_less_than_zero_and_knows_no_order_that_both_queues_share(seed, batch, size):
    torch.manual_seed(seed)
    tensors = [F.normalize(torch.randn(n, d, dtype=torch.float64), dim=1) for n, d in
               ((batch, 4), (batch, 6), (size, 4), (size, 6))]  # fmt: skip
    value = compress_loss(*tensors, 0.04)
    assert value >= -1e-12
    order = torch.randperm(size)
    torch.testing.assert_close(compress_loss(*tensors[:2], *(queue[order] for queue in tensors[2:]), 0.04), value)


def test_extreme_similarities_neither_overflow_nor_give_nan():
    student = torch.tensor([[1.0, 0.0]], requires_grad=True)
    queue = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
    loss = compress_loss(student, -student.detach(), queue, queue, 0.001)
    loss.backward()
    assert float(loss.detach()) == pytest.approx(2000, rel=1e-6)
    assert student.grad.isfinite().all()


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
@pytest.mark.parametrize("temperature", [0.04, 0.2, 1.0])
@pytest.mark.parametrize(("batch", "size"), [(1, 1), (5, 3), (16, 1000)])
def test_compress_loss_is_torchs_divergence_with_a_mean_over_the_batch(
    batch, size, temperature, dtype, tolerance, units, gradients, close
):
    def reference(student, teacher, student_queue, teacher_queue):
        target = torch.softmax(teacher @ teacher_queue.T / temperature, 1)
        log_p = torch.log_softmax(student @ student_queue.T / temperature, 1)
        return F.kl_div(log_p, target, reduction="batchmean")

    tensors = [units(batch, 8), units(batch, 24), units(size, 8), units(size, 24)]
    single = [tensor.to(dtype) for tensor in tensors]
    found = gradients(lambda *values: compress_loss(*values, temperature), single, wanted=[0])
    assert all(value.dtype == dtype for value in found)
    close(found, gradients(reference, tensors, wanted=[0]), tolerance)
