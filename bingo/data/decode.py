"""Decoding one image file."""

import torch
from torch import Tensor
from torchvision.io import ImageReadMode, decode_image

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".gif"})


class BadImageError(Exception):
    """Bytes that are no whole image."""


def decode(content: bytes) -> Tensor:
    """Decode an image file to RGB, turned upright by its EXIF orientation: uint8 (3, H, W).

    Grey, palette, CMYK and transparent images become RGB, 16-bit ones 8-bit, and of an animation the first
    picture is taken.

    Raises:
        BadImageError: the bytes are empty, truncated or no image.
    """
    if not content:
        raise BadImageError("the file is empty")
    try:
        encoded = torch.frombuffer(bytearray(content), dtype=torch.uint8)
        pixels = decode_image(encoded, mode=ImageReadMode.RGB, apply_exif_orientation=True)
    except (RuntimeError, ValueError) as error:
        raise BadImageError(str(error).strip().splitlines()[0].split(", ", 2)[-1]) from error
    if pixels.dtype == torch.uint16:
        pixels = (pixels.to(torch.int32) // 257).to(torch.uint8)
    return pixels[0] if pixels.ndim == 4 else pixels
