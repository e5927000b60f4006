import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from bingo.losses import info_nce as module
from bingo.losses.info_nce import info_nce, queue_logsumexp

FEW = settings(deadline=None, max_examples=40)


def unit_vectors(*shape, dtype=torch.float64):
    return F.normalize(torch.randn(*shape, dtype=dtype), dim=-1)


def naive(query, key, queue, temperature):
    """MoCo's own formulation: the matrix of logits with the positive in column 0."""
    logits = torch.cat([torch.einsum("bd,bd->b", query, key)[:, None], query @ queue.T], dim=1) / temperature
    return F.cross_entropy(logits, torch.zeros(len(query), dtype=torch.int64))


def values_and_gradients(loss, query, key, queue, temperature):
    leaves = [tensor.clone().requires_grad_() for tensor in (query, key, queue)]
    value = loss(*leaves, temperature)
    value.backward()
    return [value.detach(), *(leaf.grad for leaf in leaves)]


def ours(query, key, queue, temperature):
    return info_nce(query, key, queue_logsumexp(query, queue, temperature), temperature)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
@pytest.mark.parametrize("temperature", [0.02, 0.07, 0.2, 1.0])
@pytest.mark.parametrize(("batch", "size", "dim"), [(1, 1, 2), (5, 3, 8), (4, 64, 16), (16, 1000, 128)])
def test_info_nce_is_the_cross_entropy_of_all_logits(batch, size, dim, temperature, dtype, tolerance):
    torch.manual_seed(batch + size)
    inputs = [unit_vectors(n, dim) for n in (batch, batch, size)]
    expected = values_and_gradients(naive, *inputs, temperature)  # float64
    found = values_and_gradients(ours, *(tensor.to(dtype) for tensor in inputs), temperature)
    for ours_, naive_ in zip(found, expected, strict=True):
        assert ours_.dtype == dtype
        # Gradients are of the order of 1 / temperature.
        scale = max(1.0, float(naive_.abs().max()))
        torch.testing.assert_close(ours_.double(), naive_, rtol=0, atol=tolerance * scale)


@pytest.mark.parametrize("size", [1, 7, 65536])
@pytest.mark.parametrize("temperature", [0.02, 0.2])
def test_equal_embeddings_give_the_log_of_one_plus_queue(size, temperature):
    one = unit_vectors(1, 4, dtype=torch.float32)
    loss = ours(one.expand(3, -1), one.expand(3, -1), one.expand(size, -1), temperature)
    assert float(loss) == pytest.approx(math.log(1 + size), rel=1e-5)


@pytest.mark.parametrize("temperature", [0.02, 0.001])
def test_the_worst_match_at_a_small_temperature_neither_overflows_nor_loses_its_gradient(temperature):
    query = torch.tensor([[1.0, 0.0]], requires_grad=True)
    loss = ours(query, torch.tensor([[-1.0, 0.0]]), torch.tensor([[1.0, 0.0]] * 10), temperature)
    loss.backward()
    # exp(1 / 0.001) is beyond float64, let alone float32.
    assert float(loss.detach()) == pytest.approx(2 / temperature + math.log(10), rel=1e-6)
    torch.testing.assert_close(query.grad, torch.tensor([[2 / temperature, 0.0]]), rtol=1e-4, atol=0)


def test_a_perfect_match_at_a_small_temperature_costs_nothing():
    query = torch.tensor([[1.0, 0.0]])
    assert float(ours(query, query, -query, 0.001)) == 0.0


def literal(query, key, queue, temperature):
    """MoCo's equation 1, number by number."""
    total = 0
    for q, k in zip(query, key, strict=True):
        positive = torch.exp(sum(a * b for a, b in zip(q, k, strict=True)) / temperature)
        negatives = sum(torch.exp(sum(a * b for a, b in zip(q, n, strict=True)) / temperature) for n in queue)
        total = total - torch.log(positive / (positive + negatives))
    return total / len(query)


@pytest.mark.parametrize(("batch", "size", "dim"), [(1, 1, 2), (3, 1, 4), (4, 7, 3), (2, 19, 5)])
@pytest.mark.parametrize("temperature", [0.1, 0.2, 1.0])
def test_info_nce_is_the_equation_written_out(batch, size, dim, temperature, units, gradients, close):
    inputs = [units(n, dim) for n in (batch, batch, size)]
    expected = gradients(lambda *tensors: literal(*tensors, temperature), inputs)
    close(gradients(lambda *tensors: ours(*tensors, temperature), inputs), expected, 1e-12)


@FEW
@given(st.integers(0, 2**20), st.integers(1, 6), st.integers(1, 40), st.integers(2, 12))
def test_info_nce_knows_no_directions_and_no_order_of_the_queue(seed, batch, size, dim):
    torch.manual_seed(seed)
    query, key, queue = unit_vectors(batch, dim), unit_vectors(batch, dim), unit_vectors(size, dim)
    value = ours(query, key, queue, 0.2)
    rotation = torch.linalg.qr(torch.randn(dim, dim, dtype=torch.float64)).Q
    torch.testing.assert_close(ours(query @ rotation, key @ rotation, queue @ rotation, 0.2), value)
    torch.testing.assert_close(ours(query, key, queue[torch.randperm(size)], 0.2), value)
    rows = torch.randperm(batch)
    torch.testing.assert_close(ours(query[rows], key[rows], queue, 0.2), value)


@FEW
@given(st.integers(0, 2**20), st.integers(1, 5), st.integers(1, 9))
def test_info_nce_is_the_mean_over_the_batch_and_more_negatives_cost_more(seed, batch, size):
    torch.manual_seed(seed)
    query, key, queue = unit_vectors(batch, 6), unit_vectors(batch, 6), unit_vectors(size, 6)
    value = ours(query, key, queue, 0.2)
    alone = torch.stack([ours(query[i : i + 1], key[i : i + 1], queue, 0.2) for i in range(batch)])
    torch.testing.assert_close(alone.mean(), value)
    assert value > ours(query, key, queue[:-1], 0.2) or size == 1
    assert value > 0


def test_gradients_are_those_of_finite_differences(units):
    inputs = [tensor.requires_grad_() for tensor in (units(3, 4), units(3, 4), units(5, 4))]
    assert torch.autograd.gradcheck(lambda *tensors: ours(*tensors, 0.2), inputs)


def test_one_logsumexp_serves_every_positive_of_a_query(units):
    query, queue, keys = units(4, 6), units(9, 6), [units(4, 6) for _ in range(3)]
    negatives = queue_logsumexp(query, queue, 0.2)
    assert negatives.shape == (4,)
    for key in keys:
        torch.testing.assert_close(info_nce(query, key, negatives, 0.2), naive(query, key, queue, 0.2))


@pytest.mark.parametrize("order", ["falling", "rising", "drawn"])
@pytest.mark.parametrize("rows", [1, 7, 64])
@pytest.mark.parametrize("temperature", [0.02, 0.2])
def test_blocks_of_the_queue_add_up_whichever_holds_the_nearest(order, rows, temperature, monkeypatch):
    torch.manual_seed(rows)
    query, key, queue = unit_vectors(5, 8), unit_vectors(5, 8), unit_vectors(60, 8)
    if order != "drawn":
        queue = queue[(queue @ query[0]).argsort(descending=order == "falling")]
    expected = values_and_gradients(naive, query, key, queue, temperature)
    monkeypatch.setattr(module, "_CPU_BLOCK", 5 * rows)
    for dtype, tolerance in ((torch.float64, 1e-12), (torch.float32, 1e-5)):
        found = values_and_gradients(ours, *(tensor.to(dtype) for tensor in (query, key, queue)), temperature)
        for ours_, naive_ in zip(found, expected, strict=True):
            scale = max(1.0, float(naive_.abs().max()))
            torch.testing.assert_close(ours_.double(), naive_, rtol=0, atol=tolerance * scale)


def test_a_second_derivative_is_refused_rather_than_wrong(units):
    query, queue = units(3, 4).requires_grad_(), units(5, 4)
    (gradient,) = torch.autograd.grad(queue_logsumexp(query, queue, 0.2).sum(), query, create_graph=True)
    with pytest.raises(RuntimeError):
        torch.autograd.grad(gradient.sum(), query)
