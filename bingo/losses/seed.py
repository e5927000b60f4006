"""SEED loss: soft cross-entropy between similarity distributions over a queue."""

import torch
from torch import Tensor

from bingo.losses.info_nce import queue_logsumexp


def seed_loss(
    student: Tensor, teacher: Tensor, queue: Tensor, temperature: float, teacher_temperature: float
) -> Tensor:
    r"""Return the mean of $-\sum_j p_j \log q_j$ over the batch.

    With $p = softmax([t \cdot t, t \cdot Q] / \tau_t)$ and $q = softmax([s \cdot t, s \cdot Q] / \tau)$.
    The image's own teacher embedding t is the positive and precedes the queue Q.
    Source: SEED (Fang et al. 2021); jacobswan1/SEED.

    Because $\sum_j p_j (s \cdot Q_j) = s \cdot \sum_j p_j Q_j$, only the logsumexp of the student's logits is
    needed, not the (B, 1 + Q) logits.

    Args:
        student: (B, D) unit vectors; gradients flow.
        teacher: (B, D) unit vectors.
        queue: (Q, D) unit vectors.
        temperature: tau of the student, above 0.
        teacher_temperature: tau of the teacher, above 0. The default 1e-4 needs float32: lower precision cannot
            resolve the logits.
    """
    positive = (teacher * teacher).sum(1) / teacher_temperature  # (B,)
    logits = teacher @ queue.T / teacher_temperature  # (B, Q)
    # At tau 1e-4 the logits are near 10,000, where float32 is too coarse. Subtract the maximum first.
    maximum = torch.maximum(positive, logits.amax(1))  # (B,)
    positive, logits = positive - maximum, logits - maximum[:, None]
    total = torch.logaddexp(positive, torch.logsumexp(logits, dim=1))  # (B,)
    p_positive = (positive - total).exp()  # (B,)
    mean_key = p_positive[:, None] * teacher + (logits - total[:, None]).exp() @ queue  # (B, D)
    negatives = queue_logsumexp(student, queue, temperature)  # (B,)
    normaliser = torch.logaddexp((student * teacher).sum(1) / temperature, negatives)  # (B,)
    return (normaliser - (student * mean_key).sum(1) / temperature).mean()
