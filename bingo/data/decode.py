"""From the bytes of an image file to an upright RGB picture: Pillow decodes everything."""

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

# Pillow's limits are for files of strangers; these images are the user's own, however large.
Image.MAX_IMAGE_PIXELS = None
PngImagePlugin.MAX_TEXT_CHUNK = PngImagePlugin.MAX_TEXT_MEMORY = 2**30

_FORMATS: dict[bytes, type[ImageFile]] = {
    b"\xff\xd8\xff": JpegImageFile,
    b"\x89PNG\r\n\x1a\n": PngImageFile,
    b"RIFF": WebPImageFile,
    b"GIF8": GifImageFile,
}


class BadImageError(Exception):
    """Bytes that are no whole image."""


def decode(content: bytes) -> "Tensor":
    """Decode an image file, as `decode_image` does: uint8 (3, H, W).

    Raises:
        BadImageError: the bytes are empty, truncated, damaged or no image.
    """
    return pixels(decode_image(content))


def decode_image(content: bytes) -> Image.Image:
    """Decode an image file whole, as `upright` says: mode RGB.

    Raises:
        BadImageError: the bytes are empty, truncated, damaged or no image.
    """
    image = open_image(io.BytesIO(content))
    decoded = upright(image)
    if isinstance(image, PngImageFile):
        _check_last_rows(image, content)
    return decoded


def open_image(file: BinaryIO) -> ImageFile:
    """Read the header of an image file; its pixels are decoded later.

    Raises:
        BadImageError: the file is empty, no image, an animated WebP, or has a damaged header.
    """
    beginning = file.read(8)
    file.seek(0)
    if not beginning:
        raise BadImageError("the file is empty")
    for magic, kind in _FORMATS.items():
        if beginning.startswith(magic):
            with _reasons():
                image = kind(file)
            if isinstance(image, WebPImageFile) and image.is_animated:
                raise BadImageError("animated WebP")
            return image
    raise BadImageError("no JPEG, PNG, WebP or GIF file")


def upright(image: Image.Image) -> Image.Image:
    """Return an image in RGB, turned as its EXIF orientation says.

    Grey, palette, CMYK and transparent images become RGB, 16-bit grey 8-bit; what is transparent keeps its colours. Of
    an animated GIF the first picture is taken.

    Raises:
        BadImageError: the image is truncated or damaged, or of mode I or F, which do not say what is white.
    """
    if image.mode in ("I", "F"):
        raise BadImageError(f"mode {image.mode} has no range of grey levels; convert it to L or RGB first")
    with _reasons():
        image.load()
    if (turn := orientation(image)) != 1:
        image = image.copy()
        image.info.clear()  # Pillow would rewrite the EXIF data, and fail if they are damaged
        image.getexif()[ExifTags.Base.Orientation] = turn
        ImageOps.exif_transpose(image, in_place=True)
    if image.mode.startswith("I;16"):  # Pillow would cut off what is above 255
        image = Image.fromarray((np.asarray(image) // 257).astype(np.uint8))
    if image.mode == "P":  # Pillow warns where a palette with transparency becomes RGB at once
        image = image.convert("RGBA")
    return image if image.mode == "RGB" else image.convert("RGB")


def orientation(image: Image.Image) -> int:
    """Return the EXIF orientation of an image, 1 (upright) to 8; 1 where its EXIF data are damaged."""
    try:
        found = image.getexif().get(ExifTags.Base.Orientation, 1)
    except (SyntaxError, ValueError, struct.error):
        return 1
    return found if found in range(1, 9) else 1


def jpeg_orientation(content: bytes) -> int:
    """Return the EXIF orientation of a grey or RGB JPEG, which can be decoded smaller; 0 of anything else."""
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
    """Refuse a PNG whose rows end early inside a sound compressed stream; Pillow leaves those that are missing black.

    So where one of the last two is black (of an interlaced image either may be the last), it is decoded over white.
    """

    def blank(decoded: PngImageFile) -> list[bool]:
        rows = range(max(0, image.height - 2), image.height)
        return [decoded.im.crop((0, y, image.width, y + 1)).getbbox(False) is None for y in rows]

    if any(blank(image)):
        again = PngImageFile(io.BytesIO(content))
        again.im = Image.new(again.mode, again.size, 1).im
        again.load()
        if blank(again) != blank(image):
            raise BadImageError("truncated or damaged: its rows end early")


@contextmanager
def _reasons() -> Iterator[None]:
    """Raise what Pillow raises for damaged files as a `BadImageError`."""
    try:
        yield
    except (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error) as error:
        raise BadImageError(f"truncated or damaged: {error}") from error
