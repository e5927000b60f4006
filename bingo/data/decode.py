"""Decoding one image file. Imports torch only to do so."""

import zlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".gif"})

_PNG = b"\x89PNG\r\n\x1a\n"


class BadImageError(Exception):
    """Bytes that are no whole image."""


def decode(content: bytes) -> "Tensor":
    """Decode an image file to RGB: uint8 (3, H, W).

    Grey, palette, CMYK and transparent images become RGB, 16-bit ones 8-bit. JPEG and PNG are turned upright by
    their EXIF orientation, WebP is not. Of an animated GIF the first picture is taken; animated WebP is refused.

    Raises:
        BadImageError: the bytes are empty, truncated or no image.
    """
    import torch
    import torchvision

    if not content:
        raise BadImageError("the file is empty")
    if content.startswith(_PNG):
        _check_png(content)
    try:
        encoded = torch.frombuffer(bytearray(content), dtype=torch.uint8)
        pixels = torchvision.io.decode_image(encoded, torchvision.io.ImageReadMode.RGB, apply_exif_orientation=True)
    except (RuntimeError, ValueError) as error:
        raise BadImageError(str(error).strip().splitlines()[0].split(", ", 2)[-1]) from error
    if pixels.dtype == torch.uint16:
        pixels = (pixels.to(torch.int32) // 257).to(torch.uint8)
    return pixels[0] if pixels.ndim == 4 else pixels


def _check_png(content: bytes) -> None:
    """Refuse a PNG with a damaged chunk: torchvision 0.29 does not raise on one but ends the process (SIGSEGV)."""
    view, start = memoryview(content), len(_PNG)
    while start < len(content):
        end = start + 8 + int.from_bytes(view[start : start + 4])
        if zlib.crc32(view[start + 4 : end]) != int.from_bytes(view[end : end + 4]):
            raise BadImageError("truncated or damaged PNG")
        if view[start + 4 : start + 8] == b"IEND":
            return
        start = end + 4
