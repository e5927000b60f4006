"""Convert COCO segmentations (polygons and RLE) to compressed RLE and masks."""

from typing import Any

import numpy as np
import torch
from pycocotools import mask
from torch import Tensor

Rle = dict[str, Any]
"""Run-length encoding of a mask, as in pycocotools: `size` [height, width] and compressed `counts`."""


def encode(segmentation: list[list[float]] | Rle, height: int, width: int) -> Rle:
    """Return an annotation's `segmentation` as compressed RLE.

    Validates the input, because pycocotools interprets a polygon of two corners as a box, and leaves pixels undefined
    if run lengths are missing.

    Args:
        segmentation: polygons [x, y, x, y, ...], whose union is the object; or RLE with `counts` compressed (string) or
            uncompressed (list).
        height: height of the image in pixels.
        width: width of the image in pixels.

    Raises:
        ValueError: there is no polygon, a polygon has fewer than three corners, or the RLE does not fit the image.
    """
    if isinstance(segmentation, list):
        if not segmentation or any(len(polygon) < 6 or len(polygon) % 2 for polygon in segmentation):
            raise ValueError("needs polygons of at least three corners, each an x and a y")
        merged: Rle = mask.merge(mask.frPyObjects(segmentation, height, width))
        return merged
    if list(segmentation["size"]) != [height, width]:
        raise ValueError(f"has size {list(segmentation['size'])}, but its image has {[height, width]}")
    counts = segmentation["counts"]
    runs = decompress(counts) if isinstance(counts, str) else counts
    if min(runs, default=0) < 0 or sum(runs) != height * width:
        raise ValueError(f"has run lengths that do not add up to {height} x {width} pixels")
    compressed: Rle = mask.frPyObjects({"size": [height, width], "counts": runs}, height, width)
    return compressed


def decompress(counts: str) -> list[int]:
    """Decode COCO's compressed run lengths (maskApi.c, rleFrString).

    Each character encodes five bits of a number, lowest first, and a bit that tells whether more follow. From the
    fourth number on, a number is the difference to the number two before it.

    Raises:
        ValueError: a character is invalid, or the last number is incomplete.
    """
    runs: list[int] = []
    value = shift = 0
    for character in counts:
        bits = ord(character) - 48
        if not 0 <= bits < 64:
            raise ValueError(f"has an invalid character in its run lengths: {character!r}")
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


def decode_masks(rles: list[Rle], height: int, width: int) -> Tensor:
    """Return the masks of N RLEs: uint8 (N, H, W), 1 on the object."""
    if not rles:
        return torch.zeros(0, height, width, dtype=torch.uint8)
    return torch.from_numpy(np.ascontiguousarray(mask.decode(rles).transpose(2, 0, 1)))


def encode_masks(masks: Tensor) -> list[Rle]:
    """Return the RLEs of masks (N, H, W) with values 0 and 1, on any device."""
    pixels = masks.to("cpu", torch.uint8).permute(1, 2, 0).numpy()  # (H, W, N)
    rles: list[Rle] = mask.encode(np.asfortranarray(pixels))
    return rles
