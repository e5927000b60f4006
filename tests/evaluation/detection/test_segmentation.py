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


def test_polygons_of_one_object_are_united():
    expected = np.zeros((6, 8), np.uint8)
    expected[1:4, 2:5] = 1
    expected[3:6, 4:8] = 1
    other = [4.0, 3.0, 8.0, 3.0, 8.0, 6.0, 4.0, 6.0]
    assert np.array_equal(pixels([SQUARE, other], 6, 8), expected)


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
    "segmentation",
    [
        [],
        [[]],
        [[1.0, 1.0, 5.0, 4.0]],  # pycocotools takes it for a box
        [SQUARE, SQUARE[:-1]],
        {"size": [8, 6], "counts": [48]},
        *(
            {"size": [6, 8], "counts": counts}
            # pycocotools leaves the pixels after [5, 5] undefined; "5P" ends in the middle of a number.
            for counts in ([5, 5], [-5, 53], [], "", "5", "5P", "5~", "5 ")
        ),
    ],
    ids=str,
)
def test_a_wrong_outline_is_refused(segmentation):
    with pytest.raises(ValueError, match=r"size|corners|run lengths"):
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
