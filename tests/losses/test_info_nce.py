import math

import pytest
import torch
import torch.nn.functional as F

from bingo.losses.info_nce import info_nce, queue_logsumexp


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
