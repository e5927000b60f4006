"""CompRess loss: KL divergence between similarity distributions over queues."""

import torch
from torch import Tensor


def compress_loss(
    student: Tensor, teacher: Tensor, student_queue: Tensor, teacher_queue: Tensor, temperature: float
) -> Tensor:
    r"""Return the mean of $KL(softmax(t Q_t / \tau) || softmax(s Q_s / \tau))$ over the batch.

    Source: CompRess (Koohpayegani et al. 2020); UMBCvision/CompRess.

    Args:
        student: (B, D_s) unit vectors; gradients flow.
        teacher: (B, D_t) unit vectors.
        student_queue: (Q, D_s) unit vectors of the same images, in the same order, as ``teacher_queue``.
        teacher_queue: (Q, D_t) unit vectors.
        temperature: tau of both networks, above 0.
    """
    target_log_probs = torch.log_softmax(teacher @ teacher_queue.T / temperature, dim=1)  # (B, Q)
    log_probs = torch.log_softmax(student @ student_queue.T / temperature, dim=1)  # (B, Q)
    return (target_log_probs.exp() * (target_log_probs - log_probs)).sum(1).mean()
