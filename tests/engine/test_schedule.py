import math

import pytest
import torch

from bingo.engine.schedule import cosine


def test_cosine_falls_from_the_full_rate_through_half_of_it():
    assert cosine(0.3, 0, 8) == pytest.approx(0.3)
    assert cosine(0.3, 2, 8) == pytest.approx(0.15 * (1 + math.sqrt(0.5)))
    assert cosine(0.3, 4, 8) == pytest.approx(0.15)
    rates = [cosine(0.3, epoch, 8) for epoch in range(8)]
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] > 0


@pytest.mark.parametrize("epochs", [1, 7, 200])
def test_cosine_is_torchs_annealing_per_epoch(epochs):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.03)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=epochs)
    for epoch in range(epochs):
        assert cosine(0.03, epoch, epochs) == pytest.approx(optimizer.param_groups[0]["lr"], abs=1e-9)
        optimizer.step()
        scheduler.step()
