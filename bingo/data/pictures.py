"""Encoded images, decoded no larger than a view of them needs.

libjpeg decodes a JPEG to 1/2, 1/4 or 1/8 of its sides, each pixel the mean of 2 x 2, 4 x 4 or 8 x 8, which halves the
time for photographs of several megapixels. A view that is smaller than its crop by such a factor loses next to nothing:
on smooth images the two differ by less than two grey levels in the mean.
"""

import io
import math
from functools import cached_property

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from bingo.data.decode import BadImageError, jpeg_orientation, open_image, pixels, upright
from bingo.errors import BingoError
from bingo.study.sections import Interpolation
from bingo.views.apply import CropBox

WHOLE_BELOW = 2**20
"""Images of fewer pixels are decoded whole: what takes the time in them, undoing the entropy code, has no scale."""


def scale_of(whole: tuple[int, int], box: CropBox, size: tuple[int, int]) -> int:
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
        self._scaled: dict[int, Image.Image] = {}

    def whole(self) -> Tensor:
        """Return the image: uint8 (3, H, W).

        Raises:
            BingoError: it cannot be decoded.
        """
        return self._whole

    def view(self, box: CropBox, size: tuple[int, int], interpolation: Interpolation) -> Tensor:
        """Return what ``box`` shows, resized to ``size`` with antialiasing: uint8 (3, *size).

        Raises:
            BingoError: the image cannot be decoded.
        """
        scale = scale_of(self.size, box, size)
        if scale > 1 and self.jpeg_orientation:
            return self._view_of_scaled(scale, box, size, interpolation)
        top, left, height, width = box
        crop = self._whole[None, :, top : top + height, left : left + width]
        if (height, width) != size:
            # What torchvision's resized_crop comes to; it is faster so, pixel by pixel in memory.
            crop = crop.contiguous(memory_format=torch.channels_last)
            crop = F.interpolate(crop, size, mode=interpolation, antialias=True)
        return crop[0]

    @cached_property
    def jpeg_orientation(self) -> int:
        """EXIF orientation of a grey or RGB JPEG, 0 of anything else."""
        return jpeg_orientation(self.content)

    @cached_property
    def _whole(self) -> Tensor:
        return pixels(self._decode(1))

    def _decode(self, scale: int) -> Image.Image:
        """Decode to 1 / ``scale`` of the sides, rounded up; only JPEGs have a scale other than 1."""
        try:
            image = open_image(io.BytesIO(self.content))
            image.draft(None, (image.width // scale, image.height // scale))
            decoded = upright(image)
        except BadImageError as error:
            raise BingoError(f"{self.name}: cannot be decoded ({error}); list the data anew") from error
        if [decoded.height, decoded.width] != [math.ceil(side / scale) for side in self.size]:
            raise BingoError(f"{self.name}: is not of the size that was listed; list the data anew")
        return decoded

    def _view_of_scaled(self, scale: int, box: CropBox, size: tuple[int, int], interpolation: Interpolation) -> Tensor:
        if scale not in self._scaled:
            self._scaled[scale] = self._decode(scale)
        image, turn = self._scaled[scale], self.jpeg_orientation
        # The last of the encoded rows and columns may be partly empty. Where they are turned to the front, the image
        # begins that much inside.
        y = image.height - self.size[0] / scale if turn in (3, 4, 7, 8) else 0.0
        x = image.width - self.size[1] / scale if turn in (2, 3, 6, 7) else 0.0
        top, left, height, width = (number / scale for number in box)
        top, left, bottom, right = y + top, x + left, y + top + height, x + left + width
        # Cut out first, so that as in a whole image nothing beyond the box is mixed in.
        outer = (math.floor(left), math.floor(top), math.ceil(right), math.ceil(bottom))
        inner = (left - outer[0], top - outer[1], right - outer[0], bottom - outer[1])
        resample = Image.Resampling[interpolation.upper()]
        return pixels(image.crop(outer).resize((size[1], size[0]), resample, inner))
