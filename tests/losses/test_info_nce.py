import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from bingo.losses import info_nce as module
from bingo.losses.info_nce import info_nce, queue_logsumexp


def naive(query, key, queue, temperature):
    """MoCo's own formulation: the matrix of logits with the positive in column 0."""
    logits = torch.cat([torch.einsum("bd,bd->b", query, key)[:, None], query @ queue.T], dim=1) / temperature
    return F.cross_entropy(logits, torch.zeros(len(query), dtype=torch.int64))


def ours(query, key, queue, temperature):
    return info_nce(query, key, queue_logsumexp(query, queue, temperature), temperature)


@pytest.mark.parametrize("size", [1, 7, 65536])
@pytest.mark.parametrize("temperature", [0.02, 0.2])
def test_equal_embeddings_give_the_log_of_one_plus_queue(size, temperature):
    one = F.normalize(torch.randn(1, 4), dim=1)
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


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
@pytest.mark.parametrize("temperature", [0.02, 0.2, 1.0])
@pytest.mark.parametrize(("batch", "size", "dim"), [(1, 1, 2), (4, 64, 16), (16, 1000, 128)])
def test_info_nce_is_the_cross_entropy_of_all_logits(
    batch, size, dim, temperature, dtype, tolerance, units, gradients, close
):
    inputs = [units(n, dim) for n in (batch, batch, size)]
    expected = gradients(lambda *tensors: naive(*tensors, temperature), inputs)  # float64
    found = gradients(lambda *tensors: ours(*tensors, temperature), [tensor.to(dtype) for tensor in inputs])
    assert all(value.dtype == dtype for value in found)
    close(found, expected, tolerance)


@pytest.mark.parametrize("order", ["falling", "rising", "drawn"])
@pytest.mark.parametrize("rows", [1, 7, 64])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
def test_blocks_of_the_queue_add_up_whichever_holds_the_nearest(
    order, rows, dtype, tolerance, units, gradients, close, monkeypatch
):
    query, key, queue = units(5, 8), units(5, 8), units(60, 8)
    if order != "drawn":
        queue = queue[(queue @ query[0]).argsort(descending=order == "falling")]
    expected = gradients(lambda *tensors: naive(*tensors, 0.02), [query, key, queue])
    monkeypatch.setattr(module, "_CPU_BLOCK", 5 * rows)
    inputs = [tensor.to(dtype) for tensor in (query, key, queue)]
    close(gradients(lambda *tensors: ours(*tensors, 0.02), inputs), expected, tolerance)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**20), st.integers(1, 6), st.integers(1, 40), st.integers(2, 12))
def test_info_nce_is_a_mean_over_the_batch_and_ignores_rotations_and_the_order_of_the_queue(seed, batch, size, dim):
    torch.manual_seed(seed)
    query, key, queue = (F.normalize(torch.randn(n, dim, dtype=torch.float64), dim=1) for n in (batch, batch, size))
    value = ours(query, key, queue, 0.2)
    rotation = torch.linalg.qr(torch.randn(dim, dim, dtype=torch.float64)).Q
    torch.testing.assert_close(ours(query @ rotation, key @ rotation, queue @ rotation, 0.2), value)
    torch.testing.assert_close(ours(query, key, queue[torch.randperm(size)], 0.2), value)
    alone = torch.stack([ours(query[i : i + 1], key[i : i + 1], queue, 0.2) for i in range(batch)])
    torch.testing.assert_close(alone.mean(), value)
    assert value > ours(query, key, queue[:-1], 0.2) or size == 1  # more negatives cost more
