"""JPEGs decoded by nvJPEG on the device that trains, instead of by loader workers.

Images are decoded whole, at no scale; what is no plain JPEG, or lies on its side, is decoded on the CPU.
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
    """An image on the device."""

    pixels: Tensor
    size: tuple[int, int]

    def view(self, box: CropBox, size: tuple[int, int], interpolation: Interpolation) -> Tensor:
        return V.resized_crop(self.pixels, *box, list(size), MODES[interpolation], antialias=True)


class EncodedBatch:
    """Images that wait for the device; what all views of a batch share, so that each is decoded once."""

    def __init__(self, pictures: Iterable[Picture]) -> None:
        """Read the images; nothing is decoded yet."""
        self.pictures = list(pictures)
        self._decoded: list[_Decoded] | None = None

    def crops(
        self, parameters: ViewParameters, size: int, interpolation: Interpolation, device: torch.device
    ) -> Tensor:
        """Return a view of each image as `crop_each` makes it: uint8 (B, 3, S, S) on ``device``.

        Raises:
            BingoError: ``device`` has no nvJPEG, or it cannot decode an image.
        """
        return crop_each(self._on(device), [parameters], size, interpolation)[0]

    def centres(self, preprocessing: Preprocessing, interpolation: Interpolation, device: torch.device) -> Tensor:
        """Return the view of evaluation of each image: uint8 (B, 3, S, S) on ``device``.

        Raises:
            BingoError: ``device`` has no nvJPEG, or it cannot decode an image.
        """
        return centre_crop(self._on(device), preprocessing, interpolation)

    def _on(self, device: torch.device) -> list[_Decoded]:
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
    """Decode JPEGs on a CUDA device: each uint8 (3, H, W)."""
    if device.type != "cuda":
        raise BingoError("data.preprocessing.decoder: nvjpeg needs a CUDA device, and there is none; set cpu")
    encoded = [torch.frombuffer(bytearray(content), dtype=torch.uint8) for content in contents]
    try:
        return torchvision.io.decode_jpeg(encoded, torchvision.io.ImageReadMode.RGB, device) if encoded else []
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        raise BingoError(f"data.preprocessing.decoder: nvJPEG cannot decode an image ({error}); set cpu") from error
