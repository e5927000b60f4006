import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from bingo.losses.compress import compress_loss

FEW = settings(deadline=None, max_examples=40)


def literal(student, teacher, student_queue, teacher_queue, temperature):
    """CompRess's equations 1 and 2, number by number."""

    def distribution(embedding, queue):
        exponentials = [
            torch.exp(sum(a * b for a, b in zip(embedding, anchor, strict=True)) / temperature) for anchor in queue
        ]
        return [value / sum(exponentials) for value in exponentials]

    total = 0
    for s, t in zip(student, teacher, strict=True):
        p, q = distribution(t, teacher_queue), distribution(s, student_queue)
        total = total + sum(a * torch.log(a / b) for a, b in zip(p, q, strict=True))
    return total / len(student)


def inputs(units, batch, size, student, teacher):
    return [units(batch, student), units(batch, teacher), units(size, student), units(size, teacher)]


@pytest.mark.parametrize(
    ("batch", "size", "student", "teacher"), [(1, 1, 2, 3), (3, 1, 4, 4), (4, 7, 3, 5), (2, 19, 5, 2)]
)
@pytest.mark.parametrize("temperature", [0.04, 0.2, 1.0])
def test_compress_loss_is_the_equation_written_out(batch, size, student, teacher, temperature, units, gradients, close):
    tensors = inputs(units, batch, size, student, teacher)
    expected = gradients(lambda *values: literal(*values, temperature), tensors)
    close(gradients(lambda *values: compress_loss(*values, temperature), tensors), expected, 1e-11)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
@pytest.mark.parametrize(("batch", "size"), [(1, 1), (5, 3), (16, 1000)])
def test_compress_loss_is_torchs_divergence_with_a_mean_over_the_batch(
    batch, size, dtype, tolerance, units, gradients, close
):
    def reference(student, teacher, student_queue, teacher_queue):
        target = torch.softmax(teacher @ teacher_queue.T / 0.04, 1)
        return F.kl_div(torch.log_softmax(student @ student_queue.T / 0.04, 1), target, reduction="batchmean")

    tensors = inputs(units, batch, size, 8, 24)
    found = gradients(
        lambda *values: compress_loss(*values, 0.04), [tensor.to(dtype) for tensor in tensors], wanted=[0]
    )
    assert all(value.dtype == dtype for value in found)
    close(found, gradients(reference, tensors, wanted=[0]), tolerance)


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_a_student_like_its_teacher_costs_nothing(size, units):
    embeddings, queue = units(5, 8), units(size, 8)
    rotation = torch.linalg.qr(torch.randn(8, 8, dtype=torch.float64)).Q
    assert float(compress_loss(embeddings, embeddings, queue, queue, 0.04)) == pytest.approx(0, abs=1e-12)
    # Each space has directions of its own.
    alike = compress_loss(embeddings @ rotation, embeddings, queue @ rotation, queue, 0.04)
    assert float(alike) == pytest.approx(0, abs=1e-12)


def test_a_queue_of_one_says_nothing(units):
    assert float(compress_loss(*inputs(units, 4, 1, 3, 5), 0.04)) == pytest.approx(0, abs=1e-12)


def test_a_student_that_tells_nothing_apart_costs_what_the_teacher_knows(units):
    # KL to the uniform distribution is log Q less the entropy of the teacher's.
    student, teacher, _, teacher_queue = inputs(units, 6, 50, 4, 8)
    p = torch.softmax(teacher @ teacher_queue.T / 0.2, 1)
    entropy = -(p * p.log()).sum(1).mean()
    found = compress_loss(student, teacher, student[:1].expand(50, -1), teacher_queue, 0.2)
    assert float(found) == pytest.approx(math.log(50) - float(entropy), rel=1e-9)


@FEW
@given(st.integers(0, 2**20), st.integers(1, 6), st.integers(1, 40))
def test_compress_loss_is_no_less_than_zero_and_knows_no_order_that_both_queues_share(seed, batch, size):
    torch.manual_seed(seed)
    tensors = [F.normalize(torch.randn(n, d, dtype=torch.float64), dim=1) for n, d in
               ((batch, 4), (batch, 6), (size, 4), (size, 6))]  # fmt: skip
    value = compress_loss(*tensors, 0.04)
    assert value >= -1e-12
    order = torch.randperm(size)
    torch.testing.assert_close(compress_loss(*tensors[:2], *(queue[order] for queue in tensors[2:]), 0.04), value)


def test_queues_that_are_not_aligned_cost_more(units):
    embeddings, queue = units(5, 8), units(9, 8)
    assert compress_loss(embeddings, embeddings, queue.roll(1, 0), queue, 0.04) > 0.1


def test_extreme_similarities_neither_overflow_nor_give_nan():
    student = torch.tensor([[1.0, 0.0]], requires_grad=True)
    queue = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
    loss = compress_loss(student, -student.detach(), queue, queue, 0.001)
    loss.backward()
    assert float(loss.detach()) == pytest.approx(2000, rel=1e-6)
    assert student.grad.isfinite().all()


def test_gradients_are_those_of_finite_differences(units):
    tensors = [tensor.requires_grad_() for tensor in inputs(units, 3, 5, 4, 6)]
    assert torch.autograd.gradcheck(lambda *values: compress_loss(*values, 0.2), tensors)
