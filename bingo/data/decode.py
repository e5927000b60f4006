"""Decode image files to upright RGB with Pillow."""

import io
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
from PIL import ExifTags, Image, ImageOps, PngImagePlugin
from PIL.GifImagePlugin import GifImageFile
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.WebPImagePlugin import WebPImageFile

if TYPE_CHECKING:
    from torch import Tensor

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".gif"})

# Pillow limits sizes to protect against untrusted files. The user's own images may be larger.
Image.MAX_IMAGE_PIXELS = None
PngImagePlugin.MAX_TEXT_CHUNK = PngImagePlugin.MAX_TEXT_MEMORY = 2**30

_FORMATS: dict[bytes, type[ImageFile]] = {
    b"\xff\xd8\xff": JpegImageFile,
    b"\x89PNG\r\n\x1a\n": PngImageFile,
    b"RIFF": WebPImageFile,
    b"GIF8": GifImageFile,
}


class BadImageError(Exception):
    """The bytes are not a complete image."""


def decode(content: bytes) -> "Tensor":
    """Decode an image file with `decode_image`, to uint8 (3, H, W).

    Raises:
        BadImageError: the bytes are empty, truncated, damaged or not an image.
    """
    return pixels(decode_image(content))


def decode_image(content: bytes) -> Image.Image:
    """Decode an image file completely, to an upright RGB image (see `upright`).

    Raises:
        BadImageError: the bytes are empty, truncated, damaged or not an image.
    """
    image = open_image(io.BytesIO(content))
    decoded = upright(image)
    if isinstance(image, PngImageFile):
        _check_last_rows(image, content)
    return decoded


def open_image(file: BinaryIO) -> ImageFile:
    """Read the header of an image file without decoding its pixels.

    Raises:
        BadImageError: the file is empty, not an image, an animated WebP, or has a damaged header.
    """
    start = file.read(8)
    file.seek(0)
    if not start:
        raise BadImageError("the file is empty")
    for magic, kind in _FORMATS.items():
        if start.startswith(magic):
            with _bad_image_errors():
                image = kind(file)
            if isinstance(image, WebPImageFile) and image.is_animated:
                raise BadImageError("animated WebP")
            return image
    raise BadImageError("not a JPEG, PNG, WebP or GIF file")


def upright(image: Image.Image) -> Image.Image:
    """Convert an image to RGB and apply its EXIF orientation.

    Accepts grey, palette, CMYK and transparent images; transparent pixels keep their colours. 16-bit grey becomes
    8-bit. An animated GIF gives its first frame.

    Raises:
        BadImageError: the image is truncated or damaged, or has mode I or F, which do not define a white level.
    """
    if image.mode in ("I", "F"):
        raise BadImageError(f"mode {image.mode} has no range of grey levels; convert it to L or RGB first")
    with _bad_image_errors():
        image.load()
    if (exif_orientation := orientation(image)) != 1:
        image = image.copy()
        image.info.clear()  # exif_transpose would rewrite the EXIF data, and fail if they are damaged
        image.getexif()[ExifTags.Base.Orientation] = exif_orientation
        ImageOps.exif_transpose(image, in_place=True)
    if image.mode.startswith("I;16"):  # Pillow would clip at 255
        image = Image.fromarray((np.asarray(image) // 257).astype(np.uint8))
    if image.mode == "P":  # Pillow warns when it converts a palette with transparency directly to RGB
        image = image.convert("RGBA")
    return image if image.mode == "RGB" else image.convert("RGB")


def orientation(image: Image.Image) -> int:
    """Return the EXIF orientation of an image, 1 (upright) to 8; 1 if the EXIF data are damaged."""
    try:
        value = image.getexif().get(ExifTags.Base.Orientation, 1)
    except (SyntaxError, ValueError, struct.error):
        return 1
    return value if value in range(1, 9) else 1


def jpeg_orientation(content: bytes) -> int:
    """Return the EXIF orientation of a grey or RGB JPEG, which libjpeg can decode at reduced size; otherwise 0."""
    try:
        image = open_image(io.BytesIO(content))
    except BadImageError:
        return 0
    return orientation(image) if image.format == "JPEG" and image.mode in ("L", "RGB") else 0


def pixels(image: Image.Image) -> "Tensor":
    """Return the pixels of an RGB image: uint8 (3, H, W)."""
    import torch

    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def _check_last_rows(image: PngImageFile, content: bytes) -> None:
    """Reject a PNG with missing rows in an intact compressed stream; Pillow leaves such rows black without an error.

    If one of the last two rows is black, decode again onto white and compare. In an interlaced image either of the two
    may be stored last.
    """

    def black(decoded: PngImageFile) -> list[bool]:
        rows = range(max(0, image.height - 2), image.height)
        return [decoded.im.crop((0, y, image.width, y + 1)).getbbox(False) is None for y in rows]

    if any(black(image)):
        on_white = PngImageFile(io.BytesIO(content))
        on_white.im = Image.new(on_white.mode, on_white.size, 1).im
        on_white.load()
        if black(on_white) != black(image):
            raise BadImageError("truncated or damaged: rows are missing")


@contextmanager
def _bad_image_errors() -> Iterator[None]:
    """Convert the exceptions that Pillow raises for damaged files to `BadImageError`."""
    try:
        yield
    except (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error) as error:
        raise BadImageError(f"truncated or damaged: {error}") from error
