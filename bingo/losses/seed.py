"""SEED's loss: a soft cross-entropy between similarity distributions over a queue."""

import torch
from torch import Tensor

from bingo.losses.info_nce import queue_logsumexp


def seed_loss(
    student: Tensor, teacher: Tensor, queue: Tensor, temperature: float, teacher_temperature: float
) -> Tensor:
    r"""Return the mean of :math:`-\sum_j p_j \log q_j` over the batch.

    With :math:`p = softmax([t \cdot t, t \cdot Q] / \tau_t)` and
    :math:`q = softmax([s \cdot t, s \cdot Q] / \tau)`: the image's own teacher embedding stands before the queue.
    Source: SEED (Fang et al. 2021); jacobswan1/SEED.

    As :math:`\sum_j p_j (s \cdot Q_j) = s \cdot \sum_j p_j Q_j`, the student's logits are needed for their logsumexp
    alone, and no (B, 1 + Q) matrix is put together.

    Args:
        student: (B, D) unit vectors; gradients flow.
        teacher: (B, D) unit vectors.
        queue: (Q, D) unit vectors.
        temperature: tau of the student, above 0.
        teacher_temperature: tau of the teacher, above 0; at 1e-4 only float32 and better resolve the logits.
    """
    own = (teacher * teacher).sum(1) / teacher_temperature  # (B,)
    logits = teacher @ queue.T / teacher_temperature  # (B, Q)
    # At 1e-4 logits are near 10,000, where float32 is too coarse for a normaliser.
    peak = torch.maximum(own, logits.amax(1))  # (B,)
    own, logits = own - peak, logits - peak[:, None]
    total = torch.logaddexp(own, torch.logsumexp(logits, dim=1))  # (B,)
    own_share = (own - total).exp()  # (B,)
    mean_key = own_share[:, None] * teacher + (logits - total[:, None]).exp() @ queue  # (B, D)
    negatives = queue_logsumexp(student, queue, temperature)  # (B,)
    normaliser = torch.logaddexp((student * teacher).sum(1) / temperature, negatives)  # (B,)
    return (normaliser - (student * mean_key).sum(1) / temperature).mean()
