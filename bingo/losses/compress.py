"""CompRess's loss: the divergence between similarity distributions over queues."""

import torch
from torch import Tensor


def compress_loss(
    student: Tensor, teacher: Tensor, student_queue: Tensor, teacher_queue: Tensor, temperature: float
) -> Tensor:
    r"""Return the mean of :math:`KL(softmax(t Q_t / \tau) || softmax(s Q_s / \tau))` over the batch.

    Source: CompRess (Koohpayegani et al. 2020); UMBCvision/CompRess.

    Args:
        student: (B, D_s) unit vectors; gradients flow.
        teacher: (B, D_t) unit vectors.
        student_queue: (Q, D_s) unit vectors, of the same images in the same order as ``teacher_queue``.
        teacher_queue: (Q, D_t) unit vectors.
        temperature: tau of both, above 0.
    """
    expected = torch.log_softmax(teacher @ teacher_queue.T / temperature, dim=1)  # (B, Q)
    found = torch.log_softmax(student @ student_queue.T / temperature, dim=1)  # (B, Q)
    return (expected.exp() * (expected - found)).sum(1).mean()
