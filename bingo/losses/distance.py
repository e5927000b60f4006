"""Squared distance between embeddings."""

from torch import Tensor


def squared_distance(student: Tensor, teacher: Tensor) -> Tensor:
    r"""Return the mean of $|T(x) - s(x)|^2$ over the batch, summed over dimensions.

    Source: DisCo (Gao et al. 2022).

    Args:
        student: (B, D); gradients flow.
        teacher: (B, D).
    """
    return (teacher - student).square().sum(1).mean()
