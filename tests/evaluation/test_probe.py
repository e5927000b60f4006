import numpy as np
import pytest
import torch
from torch import nn

from bingo.errors import BingoError
from bingo.views.recipes import RECIPES

VIEWS = [("bilinear", False), ("bilinear", True), ("bicubic", False), ("bicubic", True)]


@pytest.mark.parametrize("view", VIEWS)
def test_features_are_those_of_torchvisions_centre_views(view, probe, features):
    for split, found in (("train", probe().train_features), ("val", probe().val_features)):
        expected, _ = features(split, *view)
        torch.testing.assert_close(found(*view), expected, atol=1e-4, rtol=1e-4)
        for other in VIEWS:
            assert other == view or (expected - features(split, *other)[0]).abs().max() > 0.01


def test_features_can_be_trained_on(probe):
    # They come out of inference mode, whose tensors take no part in autograd.
    rows = probe().val_features("bilinear")
    layer = nn.Linear(rows.shape[1], 2)
    layer(rows).sum().backward()
    torch.testing.assert_close(layer.weight.grad, rows.sum(0).repeat(2, 1))


def test_features_that_are_not_finite_are_refused(probe, backbone):
    with pytest.raises(BingoError, match=r"^bingo: "):
        probe(backbone=nn.Sequential(backbone, nn.Threshold(torch.inf, torch.nan))).val_features("bilinear")


@pytest.mark.parametrize(
    ("batch_size", "drop_last", "sizes"), [(64, False, [64] * 3 + [18]), (64, True, [64] * 3), (256, False, [210])]
)
def test_training_batches_show_one_view_of_each_image(probe, batch_size, drop_last, sizes):
    one = probe()
    data = one.training_batches(one.train, RECIPES["crop-flip"], batch_size, drop_last)
    for epoch in (0, 1):
        batches = [data[epoch, step] for step in range(data.steps)]
        rows = np.concatenate([batch.rows["anchor"] for batch in batches])
        assert [len(batch.rows["anchor"]) for batch in batches] == sizes
        assert len(set(rows.tolist())) == sum(sizes)
        assert all(list(batch.views) == ["image"] for batch in batches)
