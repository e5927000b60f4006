"""Read the images of a listing by position."""

import os
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from functools import cached_property
from io import FileIO
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bingo.artifacts.provenance import digest_arrays
from bingo.data.arrays import load_arrays
from bingo.data.listing import Listing
from bingo.data.nvjpeg import EncodedBatch
from bingo.data.pictures import Picture
from bingo.errors import BingoError
from bingo.study.sections import NetworkInput
from bingo.views.apply import crop_each
from bingo.views.parameters import ViewParameters
from bingo.views.recipes import Recipe
from bingo.views.rendering import ViewPixels

Key = TypeVar("Key")


class Images(Protocol):
    """Access to images by their position in the listing."""

    listing: Listing

    def fetch(self, index: NDArray[np.int64]) -> Tensor | Iterator[Picture]:
        """Return the images at ``index`` (B,): uint8 (B, 3, H, W), or B encoded images.

        The iterator reads files on demand, because a batch of decoded photographs may not fit into memory.
        """


class ArrayImages:
    """A named dataset, held in memory as uint8."""

    def __init__(self, listing: Listing) -> None:
        """Load the dataset.

        Raises:
            BingoError: the dataset is missing or does not match the listing.
        """
        images, labels = load_arrays(listing.source, listing.root, listing.split)
        rows = listing.index
        if (
            rows is None
            or digest_arrays({"image": images, "label": labels}) != listing.source_digest
            or rows.max() >= len(images)
        ):
            raise BingoError(
                f"data: {listing.source} in {listing.root} has changed since it was listed; "
                "run snakemake --forcerun data"
            )
        self.listing = listing
        self._pixels = torch.from_numpy(np.ascontiguousarray(images[rows].transpose(0, 3, 1, 2)))

    def fetch(self, index: NDArray[np.int64]) -> Tensor:
        """Return the images at ``index`` (B,): uint8 (B, 3, H, W)."""
        pixels = self._pixels[torch.from_numpy(index)]
        return pixels.expand(-1, 3, -1, -1)


class _EncodedImages(ABC):
    """Encoded images, each checked against the listing when it is read."""

    def __init__(self, listing: Listing) -> None:
        """Keep the listing without reading images."""
        self.listing = listing

    def fetch(self, index: NDArray[np.int64]) -> Iterator[Picture]:
        """Read the images at ``index`` (B,), one by one.

        Raises:
            BingoError: an image is missing or has changed.
        """
        return (self._picture(int(i)) for i in index)

    def _picture(self, i: int) -> Picture:
        listing = self.listing
        assert listing.nbytes is not None
        assert listing.crc32 is not None
        try:
            content = self._read(i)
        except OSError as error:
            raise BingoError(f"{listing.path(i)}: cannot be read ({error.strerror}); {self._remedy}") from error
        if len(content) != listing.nbytes[i] or zlib.crc32(content) != listing.crc32[i]:
            raise BingoError(f"{listing.path(i)}: has changed since it was {self._recorded}; {self._remedy}")
        height, width = listing.size[i].tolist()
        return Picture(str(listing.path(i)), content, (height, width))

    _recorded: str
    _remedy: str

    @abstractmethod
    def _read(self, i: int) -> bytes:
        """Return the bytes of image ``i``."""


class FolderImages(_EncodedImages):
    """Images as files in a folder."""

    _recorded, _remedy = "listed", "run snakemake --forcerun data"

    def _read(self, i: int) -> bytes:
        return self.listing.path(i).read_bytes()


class PackImages(_EncodedImages):
    """Images in a pack; any number of processes and threads can read at the same time."""

    _recorded, _remedy = "packed", "delete the pack and run again"

    @cached_property
    def _file(self) -> FileIO:
        return self.listing.root.open("rb", buffering=0)

    def __getstate__(self) -> dict[str, Any]:
        """Exclude the open file: a spawned process opens it again."""
        return {"listing": self.listing}

    def _read(self, i: int) -> bytes:
        assert self.listing.nbytes is not None
        assert self.listing.offset is not None
        # pread does not move the file position, so forked processes can share the open file.
        return os.pread(self._file.fileno(), int(self.listing.nbytes[i]), int(self.listing.offset[i]))


def open_images(listing: Listing) -> Images:
    """Return the images of a listing."""
    kinds = {"folder": FolderImages, "pack": PackImages}
    return kinds.get(listing.source, ArrayImages)(listing)


def render_views(
    images: Images,
    index: NDArray[np.int64],
    parameters: Mapping[Key, ViewParameters],
    preprocessing: NetworkInput,
    recipe: Recipe,
) -> dict[Key, ViewPixels]:
    """Return one view of the images at ``index`` (B,) for each entry of ``parameters``. Each image is read once.

    Raises:
        BingoError: an image cannot be read.
    """
    if len(index) == 0:  # this process has no images of a short batch
        empty = torch.empty(0, 3, preprocessing.size, preprocessing.size, dtype=torch.uint8)
        return {name: ViewPixels(empty, True, view) for name, view in parameters.items()}
    source = images.fetch(index)
    if isinstance(source, Tensor):
        return {name: ViewPixels(source, False, view) for name, view in parameters.items()}
    if preprocessing.decoder == "nvjpeg":
        batch = EncodedBatch(source)
        return {name: ViewPixels(batch, False, view) for name, view in parameters.items()}
    crops = crop_each(source, list(parameters.values()), preprocessing.size, recipe.interpolation)  # (B, 3, S, S) each
    return {name: ViewPixels(crop, True, view) for (name, view), crop in zip(parameters.items(), crops, strict=True)}
