"""Encoded images, decoded no larger than a view of them needs.

libjpeg decodes a JPEG to 1/2, 1/4 or 1/8 of its sides, each pixel the mean of 2 x 2, 4 x 4 or 8 x 8, which halves the
time for photographs of several megapixels. A view that is smaller than its crop by such a factor loses next to nothing:
on smooth images the two differ by less than two grey levels in the mean. torchvision's decoder has no scales; Pillow's
has.
"""

import io
import math
from functools import cache

import numpy as np
import torch
import torch.nn.functional as F
import torchvision
from PIL import Image, ImageOps
from PIL.JpegImagePlugin import JpegImageFile
from torch import Tensor

from bingo.data.decode import BadImageError, decode
from bingo.errors import BingoError
from bingo.study.sections import Interpolation
from bingo.views.apply import Box

WHOLE_BELOW = 2**20
"""Images of fewer pixels are decoded whole: what takes the time in them, undoing the entropy code, has no scale."""
_JPEG = b"\xff\xd8\xff"
# Of each EXIF orientation: what turns the image upright, and whether rows and columns then run backwards.
_UPRIGHT = {
    2: (Image.Transpose.FLIP_LEFT_RIGHT, (False, True)),
    3: (Image.Transpose.ROTATE_180, (True, True)),
    4: (Image.Transpose.FLIP_TOP_BOTTOM, (True, False)),
    5: (Image.Transpose.TRANSPOSE, (False, False)),
    6: (Image.Transpose.ROTATE_270, (False, True)),
    7: (Image.Transpose.TRANSVERSE, (True, True)),
    8: (Image.Transpose.ROTATE_90, (True, False)),
}


def scale_of(whole: tuple[int, int], box: Box, size: tuple[int, int]) -> int:
    """Return by how much a JPEG may be decoded smaller for a view: the most that leaves no side to be enlarged.

    A pure function of this one view, so that a view is the same whatever other views are made of the image.

    Args:
        whole: height and width of the image.
        box: what the view shows.
        size: height and width of the view.
    """
    if whole[0] * whole[1] < WHOLE_BELOW:
        return 1
    return next((s for s in (8, 4, 2) if box[2] >= s * size[0] and box[3] >= s * size[1]), 1)


class Picture:
    """One image's bytes; it is decoded once for each scale that its views need."""

    def __init__(self, name: str, content: bytes, size: tuple[int, int]) -> None:
        """Remember the bytes.

        Args:
            name: the file, for messages.
            content: an image that was once decoded whole, as the listing says.
            size: height and width of the upright image.
        """
        self.name, self.content, self.size = name, content, size
        self._whole: Tensor | None = None
        self._scaled: dict[int, tuple[Image.Image, tuple[float, float]] | None] = {}

    def whole(self) -> Tensor:
        """Return the image: uint8 (3, H, W).

        Raises:
            BingoError: it cannot be decoded.
        """
        if self._whole is None:
            try:
                self._whole = decode(self.content)
            except BadImageError as error:
                raise BingoError(f"{self.name}: cannot be decoded ({error}); list the data anew") from error
            if self._whole.shape[1:] != self.size:
                raise BingoError(f"{self.name}: is not of the size that was listed; list the data anew")
        return self._whole

    def view(self, box: Box, size: tuple[int, int], interpolation: Interpolation) -> Tensor:
        """Return what ``box`` shows, resized to ``size`` with antialiasing: uint8 (3, *size).

        Raises:
            BingoError: the image cannot be decoded.
        """
        scale = scale_of(self.size, box, size)
        if scale > 1:
            if scale not in self._scaled:
                self._scaled[scale] = decode_scaled(self.content, self.size, scale)
            if (scaled := self._scaled[scale]) is not None:
                return _view_of_scaled(*scaled, box, scale, size, interpolation)
        top, left, height, width = box
        crop = self.whole()[None, :, top : top + height, left : left + width]
        # What torchvision's resized_crop comes to, which takes a fifth longer.
        return crop[0] if (height, width) == size else F.interpolate(crop, size, mode=interpolation, antialias=True)[0]


def pixels(image: Image.Image) -> Tensor:
    """Return the pixels of a PIL image as `bingo.data.decode` makes them of its file: uint8 (3, H, W), upright, RGB.

    Raises:
        BingoError: its mode, I or F, has no range that would say what is white.
    """
    if image.mode in ("I", "F"):
        raise BingoError(f"image: mode {image.mode} has no range of grey levels; convert it to L or RGB first")
    if image.format != "WEBP":  # of WebP the decoder takes the pixels as they are stored
        image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I;16"):  # Pillow would cut off what is above 255
        grey = torch.from_numpy(np.asarray(image).astype(np.int32) // 257).to(torch.uint8)
        return grey.expand(3, -1, -1).contiguous()
    return _tensor(image.convert("RGB")).contiguous()


def decode_scaled(content: bytes, size: tuple[int, int], scale: int) -> tuple[Image.Image, tuple[float, float]] | None:
    """Decode a JPEG to 1 / ``scale`` of its sides, upright.

    Args:
        content: an image file.
        size: height and width of the upright image.
        scale: 2, 4 or 8.

    Returns:
        The image in RGB, its sides rounded up; and where in it, in its pixels, the whole one's top left corner is: up
        to a pixel inside where its last rows or columns, which may be partly empty, are turned to the front. None for
        what is to be decoded whole: other formats, CMYK, and what Pillow cannot read.
    """
    opened = _open_plain(content)
    if opened is None:
        return None
    jpeg, turn = opened
    jpeg.draft(None, (jpeg.width // scale, jpeg.height // scale))
    try:
        image = jpeg.convert("RGB")
    except (OSError, SyntaxError, ValueError):
        return None
    backwards = (False, False)
    if turn in _UPRIGHT:
        transpose, backwards = _UPRIGHT[turn]
        image = image.transpose(transpose)
    whole = [math.ceil(side / scale) for side in size]
    if [image.height, image.width] != whole:
        return None
    top, left = (
        rounded - side / scale if back else 0.0 for rounded, side, back in zip(whole, size, backwards, strict=True)
    )
    return image, (top, left)


def is_plain_jpeg(content: bytes) -> bool:
    """Tell whether an image is a grey or RGB JPEG that stands upright as it is encoded."""
    opened = _open_plain(content)
    return opened is not None and opened[1] not in _UPRIGHT


def _open_plain(content: bytes) -> tuple[JpegImageFile, int] | None:
    """Read the head of a grey or RGB JPEG, and its orientation; None for anything else."""
    if not content.startswith(_JPEG):
        return None
    try:
        jpeg = JpegImageFile(io.BytesIO(content))
        return (jpeg, _orientation(jpeg)) if jpeg.mode in ("L", "RGB") else None
    except (OSError, SyntaxError, ValueError, BadImageError):
        return None


def _orientation(jpeg: JpegImageFile) -> int:
    """Return the EXIF orientation by which torchvision's decoder turns a JPEG.

    It is asked, with a small image under the same EXIF data: of damaged data other readers make other things.
    """
    exif = next((segment for kind, segment in jpeg.applist if kind == "APP1"), None)  # the only one that it reads
    if exif is None:
        return 1
    probe, turned = _probe()
    marked = probe[:2] + b"\xff\xe1" + (len(exif) + 2).to_bytes(2) + exif + probe[2:]
    found = decode(marked)
    return next(turn for turn, pixels in turned.items() if torch.equal(pixels, found))


@cache
def _probe() -> tuple[bytes, dict[int, Tensor]]:
    """Return a JPEG without symmetry, and how it looks in each orientation."""
    rows, columns = torch.meshgrid(torch.arange(8), torch.arange(16), indexing="ij")
    probe = torchvision.io.encode_jpeg((20 * rows + 5 * columns).to(torch.uint8)[None]).numpy().tobytes()
    image = Image.fromarray(decode(probe).permute(1, 2, 0).numpy())
    turned = {1: image} | {turn: image.transpose(transpose) for turn, (transpose, _) in _UPRIGHT.items()}
    return probe, {turn: _tensor(image) for turn, image in turned.items()}


def _tensor(image: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def _view_of_scaled(
    image: Image.Image,
    corner: tuple[float, float],
    box: Box,
    scale: int,
    size: tuple[int, int],
    interpolation: Interpolation,
) -> Tensor:
    top, left, bottom, right = (
        place / scale + start
        for place, start in zip((box[0], box[1], box[0] + box[2], box[1] + box[3]), corner * 2, strict=True)
    )
    # Cut out first, so that as in a whole image nothing beyond the box is mixed in.
    outer = (math.floor(left), math.floor(top), math.ceil(right), math.ceil(bottom))
    inner = (left - outer[0], top - outer[1], right - outer[0], bottom - outer[1])
    resample = Image.Resampling[interpolation.upper()]
    view = image.crop(outer).resize((size[1], size[0]), resample, inner)
    return _tensor(view)
