import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from bingo.philox import Stream, uniform
from bingo.views.cutmix import CutMixBox, cutmix, draw_box

FEW = settings(deadline=None, max_examples=60)
WORD = st.integers(0, 2**32 - 1)


def literal_box(seed, epoch, step, size):
    """CutMix's rand_bbox, with lambda from scipy and places in pixels as integers."""
    u, y, x = uniform(seed, Stream.CUTMIX, [step], epoch, 0, 3)[0].tolist()
    cut = int(size * math.sqrt(1 - stats.beta(2, 2).ppf(u)))
    cy, cx = math.floor(y * size), math.floor(x * size)

    def clip(value):
        return min(max(value, 0), size)

    return clip(cy - cut // 2), clip(cy + cut // 2), clip(cx - cut // 2), clip(cx + cut // 2)


@pytest.mark.parametrize("size", [8, 224])
def test_boxes_are_those_of_cutmix_with_a_beta_of_two_and_two(size):
    for step in range(100):
        box = draw_box(3, 1, step, size)
        assert (box.top, box.bottom, box.left, box.right) == literal_box(3, 1, step, size)


@FEW
@given(WORD, st.integers(0, 10**4), st.integers(0, 10**6), st.integers(1, 300))
def test_a_box_lies_inside_the_image_and_its_share_is_the_area_left(seed, epoch, step, size):
    box = draw_box(seed, epoch, step, size)
    assert 0 <= box.top <= box.bottom <= size
    assert 0 <= box.left <= box.right <= size
    mask = np.zeros((size, size), bool)
    mask[box.top : box.bottom, box.left : box.right] = True
    assert box.share == pytest.approx((~mask).mean(), abs=1e-12)


@pytest.mark.parametrize(
    "box",
    [CutMixBox(2, 5, 1, 7, 0.0), CutMixBox(0, 8, 0, 8, 0.0), CutMixBox(3, 3, 2, 6, 1.0), CutMixBox(7, 8, 0, 1, 0.0)],
)
def test_the_box_of_the_second_image_is_pasted_and_nothing_else_changes(box):
    first, second = torch.rand(2, 3, 3, 8, 8)
    before = first.clone(), second.clone()
    mixed = cutmix(first, second, box)
    for y in range(8):
        for x in range(8):
            inside = box.top <= y < box.bottom and box.left <= x < box.right
            assert torch.equal(mixed[:, :, y, x], (second if inside else first)[:, :, y, x])
    assert torch.equal(first, before[0])
    assert torch.equal(second, before[1])
