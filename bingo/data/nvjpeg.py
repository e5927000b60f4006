"""Decode JPEGs with nvJPEG on the training GPU instead of in loader workers.

Images are decoded at full size. Other formats and JPEGs with an EXIF rotation are decoded on the CPU.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
import torchvision
from torch import Tensor
from torchvision.transforms.v2 import functional as V

from bingo.data.pictures import Picture
from bingo.errors import BingoError
from bingo.study.sections import Interpolation, Preprocessing
from bingo.views.apply import MODES, CropBox, centre_crop, crop_each
from bingo.views.parameters import ViewParameters


@dataclass(frozen=True)
class _Decoded:
    """A decoded image on the device."""

    pixels: Tensor
    size: tuple[int, int]

    def view(self, box: CropBox, size: tuple[int, int], interpolation: Interpolation) -> Tensor:
        return V.resized_crop(self.pixels, *box, list(size), MODES[interpolation], antialias=True)


class EncodedBatch:
    """A batch of encoded images, shared by all views of the batch. Each image is decoded once, on first use."""

    def __init__(self, pictures: Iterable[Picture]) -> None:
        """Read the images without decoding them."""
        self.pictures = list(pictures)
        self._decoded: list[_Decoded] | None = None

    def crops(
        self, parameters: ViewParameters, size: int, interpolation: Interpolation, device: torch.device
    ) -> Tensor:
        """Return the crop and flip of each image (see `crop_each`): uint8 (B, 3, S, S) on ``device``.

        Raises:
            BingoError: ``device`` has no nvJPEG, or an image cannot be decoded.
        """
        return crop_each(self._decode(device), [parameters], size, interpolation)[0]

    def centres(self, preprocessing: Preprocessing, interpolation: Interpolation, device: torch.device) -> Tensor:
        """Return the centre crop of each image (see `centre_crop`): uint8 (B, 3, S, S) on ``device``.

        Raises:
            BingoError: ``device`` has no nvJPEG, or an image cannot be decoded.
        """
        return centre_crop(self._decode(device), preprocessing, interpolation)

    def _decode(self, device: torch.device) -> list[_Decoded]:
        if self._decoded is None:
            plain = [picture.jpeg_orientation == 1 for picture in self.pictures]
            contents = [picture.content for picture, jpeg in zip(self.pictures, plain, strict=True) if jpeg]
            decoded = iter(_decode_jpegs(contents, device))
            self._decoded = [
                _Decoded(next(decoded) if jpeg else picture.whole().to(device), picture.size)
                for picture, jpeg in zip(self.pictures, plain, strict=True)
            ]
        return self._decoded


def _decode_jpegs(contents: Sequence[bytes], device: torch.device) -> list[Tensor]:
    """Decode JPEGs on a CUDA device, to uint8 (3, H, W) each."""
    if device.type != "cuda":
        raise BingoError("data.preprocessing.decoder: nvjpeg needs a CUDA device, but there is none; set it to cpu")
    encoded = [torch.frombuffer(bytearray(content), dtype=torch.uint8) for content in contents]
    try:
        return torchvision.io.decode_jpeg(encoded, torchvision.io.ImageReadMode.RGB, device) if encoded else []
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        raise BingoError(
            f"data.preprocessing.decoder: nvjpeg cannot decode an image ({error}); set it to cpu"
        ) from error
