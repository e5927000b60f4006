"""Learning-rate schedules as pure functions."""

import math

from bingo.study.sections import Schedule, Steps


def learning_rate(schedule: Schedule, lr: float, epoch: int, epochs: int) -> float:
    r"""Return the learning rate of ``epoch`` (from 0), constant within the epoch.

    ``cosine``: $\frac{lr}{2} (1 + \cos(\pi e / E))$ for epoch e of E (MoCo, main_moco.py). Steps: ``lr`` times
    the factor for each milestone reached.
    """
    if isinstance(schedule, Steps):
        return lr * schedule.factor ** sum(epoch >= milestone for milestone in schedule.milestones)
    return lr / 2 * (1 + math.cos(math.pi * epoch / epochs))
