"""Encoded images, decoded at the smallest size that a view needs.

libjpeg can decode a JPEG to 1/2, 1/4 or 1/8 of its height and width, where each pixel is the mean of 2 x 2, 4 x 4 or
8 x 8 pixels. This halves the time for photographs of several megapixels. It is used for views that shrink their crop by
at least that factor. On smooth images, such views differ from full-size decoding by less than two grey levels on
average.
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
"""Images with fewer pixels are decoded at full size: their entropy decoding dominates and cannot be scaled."""


def scale_of(whole: tuple[int, int], box: CropBox, size: tuple[int, int]) -> int:
    """Return the largest factor (1, 2, 4 or 8) by which a JPEG can be decoded smaller without upsampling the view.

    Depends on this view only, so that a view does not depend on the other views of its image.

    Args:
        whole: height and width of the image.
        box: crop box of the view.
        size: height and width of the view.
    """
    if whole[0] * whole[1] < WHOLE_BELOW:
        return 1
    return next((s for s in (8, 4, 2) if box[2] >= s * size[0] and box[3] >= s * size[1]), 1)


class Picture:
    """One encoded image, decoded once for each scale that its views need."""

    def __init__(self, name: str, content: bytes, size: tuple[int, int]) -> None:
        """Keep the bytes without decoding them.

        Args:
            name: path of the file, for error messages.
            content: bytes of the file, which the listing has checked.
            size: height and width of the upright image.
        """
        self.name, self.content, self.size = name, content, size
        self._scaled: dict[int, Image.Image] = {}

    def whole(self) -> Tensor:
        """Return the full-size image: uint8 (3, H, W).

        Raises:
            BingoError: the image cannot be decoded.
        """
        return self._whole

    def view(self, box: CropBox, size: tuple[int, int], interpolation: Interpolation) -> Tensor:
        """Return the crop ``box``, resized to ``size`` with antialiasing: uint8 (3, *size).

        Raises:
            BingoError: the image cannot be decoded.
        """
        scale = scale_of(self.size, box, size)
        if scale > 1 and self.jpeg_orientation:
            return self._view_of_scaled(scale, box, size, interpolation)
        top, left, height, width = box
        crop = self._whole[None, :, top : top + height, left : left + width]
        if (height, width) != size:
            # Equivalent to torchvision's resized_crop, but faster because of the channels-last memory format.
            crop = crop.contiguous(memory_format=torch.channels_last)
            crop = F.interpolate(crop, size, mode=interpolation, antialias=True)
        return crop[0]

    @cached_property
    def jpeg_orientation(self) -> int:
        """EXIF orientation of a grey or RGB JPEG; otherwise 0."""
        return jpeg_orientation(self.content)

    @cached_property
    def _whole(self) -> Tensor:
        return pixels(self._decode(1))

    def _decode(self, scale: int) -> Image.Image:
        """Decode to 1 / ``scale`` of height and width, rounded up; only JPEGs support a scale above 1."""
        try:
            image = open_image(io.BytesIO(self.content))
            image.draft(None, (image.width // scale, image.height // scale))
            decoded = upright(image)
        except BadImageError as error:
            raise BingoError(f"{self.name}: cannot be decoded ({error}); run snakemake --forcerun data") from error
        if [decoded.height, decoded.width] != [math.ceil(side / scale) for side in self.size]:
            raise BingoError(f"{self.name}: has another size than in the listing; run snakemake --forcerun data")
        return decoded

    def _view_of_scaled(self, scale: int, box: CropBox, size: tuple[int, int], interpolation: Interpolation) -> Tensor:
        if scale not in self._scaled:
            self._scaled[scale] = self._decode(scale)
        image, orientation = self._scaled[scale], self.jpeg_orientation
        # The last encoded row and column may be only partly covered by the image. If the orientation moves them to the
        # front, the image starts at a fractional offset.
        y = image.height - self.size[0] / scale if orientation in (3, 4, 7, 8) else 0.0
        x = image.width - self.size[1] / scale if orientation in (2, 3, 6, 7) else 0.0
        top, left, height, width = (number / scale for number in box)
        top, left, bottom, right = y + top, x + left, y + top + height, x + left + width
        # Crop before resizing, so that no pixels outside the box are mixed in.
        outer = (math.floor(left), math.floor(top), math.ceil(right), math.ceil(bottom))
        inner = (left - outer[0], top - outer[1], right - outer[0], bottom - outer[1])
        resample = Image.Resampling[interpolation.upper()]
        return pixels(image.crop(outer).resize((size[1], size[0]), resample, inner))
