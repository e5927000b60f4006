"""InfoNCE against a queue of negatives, without the (batch, 1 + queue) matrix of logits."""

import torch
from torch import Tensor


def queue_logsumexp(query: Tensor, queue: Tensor, temperature: float) -> Tensor:
    r"""Return :math:`\log \sum_j e^{q \cdot n_j / \tau}`, the share of the negatives in InfoNCE's denominator.

    One value serves every positive of the same query.

    Args:
        query: (B, D) unit vectors; gradients flow.
        queue: (Q, D) unit vectors.
        temperature: tau, above 0.

    Returns:
        (B,) in the dtype of ``query``.
    """
    return torch.logsumexp(query @ queue.T / temperature, dim=1)


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
