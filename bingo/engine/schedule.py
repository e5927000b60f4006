"""Learning-rate schedules as pure functions."""

import math


def cosine(lr: float, epoch: int, epochs: int) -> float:
    r"""Return :math:`\frac{lr}{2} (1 + \cos(\pi e / E))`, constant within an epoch (MoCo, main_moco.py)."""
    return lr / 2 * (1 + math.cos(math.pi * epoch / epochs))
