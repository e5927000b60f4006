import numpy as np
import pytest
import torch
from torch import nn

from bingo.errors import BingoError
from bingo.views.recipes import RECIPES


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("whole", [False, True])
def test_features_are_those_of_torchvisions_centre_views(interpolation, whole, probe, backbone, features):
    one = probe(backbone)
    for split, found in (("train", one.train_features), ("val", one.val_features)):
        expected, _ = features(split, interpolation, whole)
        torch.testing.assert_close(found(interpolation, whole), expected, atol=1e-4, rtol=1e-4)
        others = [(other, part) for other in ("bilinear", "bicubic") for part in (False, True)]
        others.remove((interpolation, whole))
        for other in others:
            assert (expected - features(split, *other)[0]).abs().max() > 0.01


def test_labels_and_classes_are_those_of_the_listings(probe, backbone, features):
    one = probe(backbone)
    assert one.classes == 10
    assert torch.equal(one.train_labels, features("train")[1])
    assert torch.equal(one.val_labels, features("val")[1])


def test_features_can_be_trained_on(probe, backbone):
    # They come out of inference mode, whose tensors take no part in autograd.
    rows = probe(backbone).val_features("bilinear")
    layer = nn.Linear(rows.shape[1], 2)
    layer(rows).sum().backward()
    torch.testing.assert_close(layer.weight.grad, rows.sum(0).repeat(2, 1))


def test_features_that_are_not_finite_are_refused(probe, backbone):
    with pytest.raises(BingoError, match=r"^bingo: its outputs are not finite"):
        probe(nn.Sequential(backbone, nn.Threshold(torch.inf, torch.nan))).val_features("bilinear")


@pytest.mark.parametrize(("batch_size", "drop_last", "sizes"), [(64, False, [64] * 3 + [18]), (64, True, [64] * 3)])
def test_training_batches_show_one_view_of_each_image(probe, backbone, batch_size, drop_last, sizes):
    one = probe(backbone)
    data = one.training_batches(one.train, RECIPES["crop-flip"], batch_size, drop_last)
    for epoch in (0, 1):
        batches = [data[epoch, step] for step in range(data.steps)]
        rows = np.concatenate([batch.rows["anchor"] for batch in batches])
        assert [len(batch.rows["anchor"]) for batch in batches] == sizes
        assert len(set(rows.tolist())) == sum(sizes)
        assert all(list(batch.views) == ["image"] for batch in batches)


def test_a_batch_is_at_most_all_images(probe, backbone):
    one = probe(backbone)
    data = one.training_batches(one.val, RECIPES["crop-flip"], 256, False)
    assert (data.steps, data.batch_size) == (1, 60)
