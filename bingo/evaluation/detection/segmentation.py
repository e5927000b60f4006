"""Outlines of objects: COCO's polygons and run lengths as one form, and as masks."""

from typing import Any

import numpy as np
import torch
from pycocotools import mask
from torch import Tensor

Rle = dict[str, Any]
"""A mask as pycocotools keeps it: `size` [height, width], and `counts`, its run lengths in compressed form."""


def encode(segmentation: list[list[float]] | Rle, height: int, width: int) -> Rle:
    """Return an annotation's `segmentation` as compressed run lengths.

    pycocotools itself takes a polygon of two corners for a box, and leaves pixels undefined where run lengths are too
    few. So all is checked here.

    Args:
        segmentation: polygons [x, y, x, y, ...], whose union is the object; or `size` and `counts`, compressed (a
            string) or not (a list).
        height: of the image, in pixels.
        width: of the image, in pixels.

    Raises:
        ValueError: there is no polygon, or one of fewer than three corners; or the run lengths are no mask of the
            image's size.
    """
    if isinstance(segmentation, list):
        if not segmentation or any(len(polygon) < 6 or len(polygon) % 2 for polygon in segmentation):
            raise ValueError("needs polygons of at least three corners, each an x and a y")
        merged: Rle = mask.merge(mask.frPyObjects(segmentation, height, width))
        return merged
    if list(segmentation["size"]) != [height, width]:
        raise ValueError(f"has size {list(segmentation['size'])}, its image {[height, width]}")
    counts = segmentation["counts"]
    runs = decompress(counts) if isinstance(counts, str) else counts
    if min(runs, default=0) < 0 or sum(runs) != height * width:
        raise ValueError(f"has run lengths that are not those of {height} x {width} pixels")
    compressed: Rle = mask.frPyObjects({"size": [height, width], "counts": runs}, height, width)
    return compressed


def decompress(counts: str) -> list[int]:
    """Return the run lengths that COCO's compressed form stands for (maskApi.c, rleFrString).

    Each character holds five bits of a number, lowest first, and whether more follow; from the fourth number on it is
    the difference to the last but one.

    Raises:
        ValueError: there is another character, or the last number is not whole.
    """
    runs: list[int] = []
    value = shift = 0
    for character in counts:
        bits = ord(character) - 48
        if not 0 <= bits < 64:
            raise ValueError(f"has a character in its run lengths that does not belong there: {character!r}")
        value |= (bits & 31) << shift
        shift += 5
        if not bits & 32:
            if bits & 16:
                value -= 1 << shift
            runs.append(value + (runs[-2] if len(runs) > 2 else 0))
            value = shift = 0
    if shift:
        raise ValueError("has run lengths that end in the middle of a number")
    return runs


def decode_masks(outlines: list[Rle], height: int, width: int) -> Tensor:
    """Return masks of outlines: uint8 (N, H, W), 1 on the object."""
    if not outlines:
        return torch.zeros(0, height, width, dtype=torch.uint8)
    return torch.from_numpy(np.ascontiguousarray(mask.decode(outlines).transpose(2, 0, 1)))


def encode_masks(masks: Tensor) -> list[Rle]:
    """Return the outlines of masks (N, H, W), which are 0 or 1, on any device."""
    pixels = masks.to("cpu", torch.uint8).permute(1, 2, 0).numpy()
    outlines: list[Rle] = mask.encode(np.asfortranarray(pixels))
    return outlines
