import pytest
import torch
from torch.optim.lr_scheduler import CosineAnnealingLR, MultiStepLR

from bingo.study.sections import Steps
from bingo.training.schedule import learning_rate


def rates_of(scheduler_of, epochs, lr):
    """The learning rate of each epoch by one of torch's schedulers."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=lr)
    scheduler = scheduler_of(optimizer)
    rates = []
    for _ in range(epochs):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


@pytest.mark.parametrize("epochs", [1, 7, 200])
def test_cosine_is_torchs_annealing_per_epoch(epochs):
    expected = rates_of(lambda o: CosineAnnealingLR(o, T_max=epochs), epochs, 0.03)
    found = [learning_rate("cosine", 0.03, epoch, epochs) for epoch in range(epochs)]
    assert found == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(
    ("milestones", "factor", "epochs"),
    [([90, 120], 0.2, 130), ([1], 0.5, 3), ([2, 2, 4], 0.1, 6), ([4, 2], 0.1, 6), ([50], 0.1, 10)],
)
def test_steps_are_torchs_milestones(milestones, factor, epochs):
    expected = rates_of(lambda o: MultiStepLR(o, sorted(milestones), gamma=factor), epochs, 0.01)
    schedule = Steps(milestones=milestones, factor=factor)
    found = [learning_rate(schedule, 0.01, epoch, epochs) for epoch in range(epochs)]
    assert found == pytest.approx(expected, rel=1e-9)
