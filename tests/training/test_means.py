import math

import pytest
import torch

from bingo.training.means import RunningMeans


def test_running_means_are_means():
    values = torch.rand(7, 2)
    means = RunningMeans()
    for loss, other in values:
        means.add({"loss": loss, "other": other})
    assert means.read() == pytest.approx(dict(zip(("loss", "other"), values.mean(0).tolist(), strict=True)))
    assert means.first_bad_step() is None


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(("name", "step"), [("loss", 0), ("other", 3), ("loss", 6)])
def test_running_means_name_the_first_step_that_is_not_finite(bad, step, name):
    means = RunningMeans()
    for i in range(7):
        values = {"loss": torch.tensor(1.0), "other": torch.tensor(2.0)}
        if i >= step:  # a later fault of the opposite sign hides nothing
            values[name] = torch.tensor(bad if i == step else -bad)
        means.add(values)
    assert means.first_bad_step() == step
