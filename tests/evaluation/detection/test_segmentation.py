import re

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from pycocotools import mask as coco

from bingo.evaluation.detection.segmentation import decode_masks, decompress, encode, encode_masks

SQUARE = [2.0, 1.0, 5.0, 1.0, 5.0, 4.0, 2.0, 4.0]
masks = arrays(np.uint8, array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=40), elements=st.integers(0, 1))


def runs_of(mask):
    """Lengths of the runs of 0, 1, 0, ... down the columns, as COCO counts them."""
    runs, value = [0], 0
    for pixel in mask.T.ravel():
        if pixel == value:
            runs[-1] += 1
        else:
            runs.append(1)
            value = pixel
    return runs


def pixels(segmentation, height, width):
    return decode_masks([encode(segmentation, height, width)], height, width)[0].numpy()


def test_a_polygon_of_whole_pixels_is_these_pixels():
    expected = np.zeros((6, 8), np.uint8)
    expected[1:4, 2:5] = 1
    assert np.array_equal(pixels([SQUARE], 6, 8), expected)


def test_polygons_of_one_object_are_united():
    expected = np.zeros((6, 8), np.uint8)
    expected[1:4, 2:5] = 1
    expected[3:6, 4:8] = 1
    other = [4.0, 3.0, 8.0, 3.0, 8.0, 6.0, 4.0, 6.0]
    assert np.array_equal(pixels([SQUARE, other], 6, 8), expected)


def test_a_triangle_covers_the_pixels_whose_centres_are_inside():
    side = 40
    found = pixels([[0.0, 0.0, side, 0.0, 0.0, side]], side, side)
    x, y = np.meshgrid(np.arange(side) + 0.5, np.arange(side) + 0.5)
    distance = (side - x - y) / 2**0.5
    clear = abs(distance) > 1  # the edge itself is drawn in steps
    assert np.array_equal(found[clear], (distance > 0)[clear])


def test_run_lengths_go_down_the_columns():
    expected = np.array([[0, 0, 1], [0, 1, 1], [0, 1, 0]], np.uint8)
    assert np.array_equal(pixels({"size": [3, 3], "counts": [4, 4, 1]}, 3, 3), expected)


@settings(max_examples=60, deadline=None)
@given(masks)
def test_run_lengths_in_both_forms_are_the_mask(mask):
    height, width = mask.shape
    compressed = coco.encode(np.asfortranarray(mask))["counts"].decode()
    assert decompress(compressed) == runs_of(mask)
    for counts in (compressed, runs_of(mask)):
        assert np.array_equal(pixels({"size": [height, width], "counts": counts}, height, width), mask)


def test_long_runs_are_read():
    mask = np.zeros((700, 900), np.uint8)
    mask[3:650, 4:] = 1
    assert decompress(coco.encode(np.asfortranarray(mask))["counts"].decode()) == runs_of(mask)


@pytest.mark.parametrize(
    ("segmentation", "fault"),
    [
        ([], "three corners"),
        ([[]], "three corners"),
        ([[1.0, 1.0, 5.0, 4.0]], "three corners"),  # pycocotools takes it for a box
        ([SQUARE, SQUARE[:-1]], "three corners"),
        ({"size": [8, 6], "counts": [48]}, "size [8, 6], its image [6, 8]"),
        ({"size": [6, 8], "counts": [5, 5]}, "run lengths"),  # pycocotools leaves the rest undefined
        ({"size": [6, 8], "counts": [-5, 53]}, "run lengths"),
        ({"size": [6, 8], "counts": []}, "run lengths"),
        ({"size": [6, 8], "counts": ""}, "run lengths"),
        ({"size": [6, 8], "counts": "5"}, "run lengths"),
        ({"size": [6, 8], "counts": "5P"}, "in the middle"),
        ({"size": [6, 8], "counts": "5~"}, "'~'"),
        ({"size": [6, 8], "counts": "5 "}, "' '"),
    ],
)
def test_what_is_no_outline_is_refused(segmentation, fault):
    with pytest.raises(ValueError, match=re.escape(fault)):
        encode(segmentation, 6, 8)


@settings(max_examples=20, deadline=None)
@given(arrays(np.uint8, array_shapes(min_dims=3, max_dims=3, min_side=1, max_side=12), elements=st.integers(0, 1)))
def test_masks_survive_as_outlines(several):
    height, width = several.shape[1:]
    found = decode_masks(encode_masks(torch.from_numpy(several) > 0), height, width)
    assert found.dtype == torch.uint8
    assert np.array_equal(found.numpy(), several)


def test_no_mask_has_no_outline():
    assert encode_masks(torch.zeros(0, 5, 4)) == []
    assert decode_masks([], 5, 4).shape == (0, 5, 4)
