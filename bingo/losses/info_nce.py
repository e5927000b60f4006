"""InfoNCE against a queue of negatives, without the (batch, 1 + queue) matrix of logits."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

_CPU_BLOCK, _GPU_BLOCK = 2**18, 2**25
"""Logits that are held at a time: on a CPU what stays in a core's cache, on a GPU what keeps all of it busy."""


def queue_logsumexp(query: Tensor, queue: Tensor, temperature: float) -> Tensor:
    r"""Return :math:`\log \sum_j e^{q \cdot n_j / \tau}`, the share of the negatives in InfoNCE's denominator.

    One value serves every positive of the same query. The queue is gone through block by block, so of the (B, Q)
    logits no more exist at a time than a block holds. Its gradient with respect to a query is the mean of the queue
    under the softmax of the logits, over tau, which the same pass adds up: the backward pass multiplies no matrix.

    In float32 both are within 1e-5 of what all logits at once give, relative to their largest value.

    Args:
        query: (B, D) unit vectors; gradients flow.
        queue: (Q, D) unit vectors; gradients flow where they are asked for.
        temperature: tau, above 0.

    Returns:
        (B,) in the dtype of ``query``.
    """
    return _QueueLogsumexp.apply(query, queue, temperature)


def info_nce(query: Tensor, key: Tensor, negatives: Tensor, temperature: float) -> Tensor:
    r"""Return the mean of :math:`-\log \frac{e^{q \cdot k/\tau}}{e^{q \cdot k/\tau} + \sum_j e^{q \cdot n_j/\tau}}`.

    Source: MoCo (He et al. 2020), eq. 1; BINGO's L_intra and L_inter have the same form.

    Args:
        query: (B, D) unit vectors; gradients flow.
        key: (B, D) unit vectors, the positive of each row.
        negatives: (B,) from `queue_logsumexp` of the same query and temperature.
        temperature: tau, above 0.

    Returns:
        Scalar.
    """
    positive = (query * key).sum(1) / temperature  # (B,)
    return (torch.logaddexp(positive, negatives) - positive).mean()


class _QueueLogsumexp(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, query: Tensor, queue: Tensor, temperature: float) -> Tensor:
        scaled = query / temperature  # (B, D)
        peak = query.new_full((len(query), 1), -torch.inf)
        total = torch.zeros_like(peak)  # of exp(logit - peak)
        weighted = torch.zeros_like(query)  # the queue's rows, in the same sum
        for block in _blocks(queue, query):
            logits = scaled @ block.T  # (B, b)
            higher = torch.maximum(peak, logits.amax(1, keepdim=True))
            shrink = (peak - higher).exp_()
            weights = logits.sub_(higher).exp_()
            total.mul_(shrink).add_(weights.sum(1, keepdim=True))
            if ctx.needs_input_grad[0]:
                weighted.mul_(shrink).addmm_(weights, block)
            peak = higher
        result = (peak + total.log())[:, 0]
        ctx.temperature = temperature
        ctx.save_for_backward(query, queue, result, weighted.div_(total.clamp(min=1)))  # 1 or more, but for no queue
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        query, queue, result, mean = ctx.saved_tensors
        gradient = gradients[0][:, None] / ctx.temperature  # (B, 1)
        if not ctx.needs_input_grad[1]:
            return gradient * mean, None, None
        scaled, weighted = query / ctx.temperature, gradient * query
        parts = [(scaled @ block.T - result[:, None]).exp_().T @ weighted for block in _blocks(queue, query)]
        return gradient * mean, torch.cat(parts) if parts else queue, None


def _blocks(queue: Tensor, query: Tensor) -> Iterator[Tensor]:
    logits = _CPU_BLOCK if query.device.type == "cpu" else _GPU_BLOCK
    if len(queue):
        yield from queue.split(max(1, logits // max(1, len(query))))
