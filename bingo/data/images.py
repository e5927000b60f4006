"""Pixels of a listing's images, by position."""

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
    """Something that hands out pixels by position in the listing."""

    listing: Listing

    def fetch(self, index: NDArray[np.int64]) -> Tensor | Iterator[Picture]:
        """Return the images at ``index`` (B,): uint8 (B, 3, H, W), or B that are decoded when their views are made.

        The latter are read as they are asked for: a batch of photographs would fill the memory.
        """


class ArrayImages:
    """A named set, held in memory as uint8."""

    def __init__(self, listing: Listing) -> None:
        """Load the set.

        Raises:
            BingoError: it is gone, or not the one that was listed.
        """
        images, labels = load_arrays(listing.source, listing.root, listing.split)
        rows = listing.index
        if (
            rows is None
            or digest_arrays({"image": images, "label": labels}) != listing.source_digest
            or rows.max() >= len(images)
        ):
            raise BingoError(f"data: {listing.source} in {listing.root} is not the set that was listed; list it anew")
        self.listing = listing
        self._pixels = torch.from_numpy(np.ascontiguousarray(images[rows].transpose(0, 3, 1, 2)))

    def fetch(self, index: NDArray[np.int64]) -> Tensor:
        """Return the images at ``index`` (B,): uint8 (B, 3, H, W)."""
        pixels = self._pixels[torch.from_numpy(index)]
        return pixels.expand(-1, 3, -1, -1)


class _EncodedImages(ABC):
    """Image files, each checked against the listing when it is read."""

    def __init__(self, listing: Listing) -> None:
        """Remember the listing; nothing is read yet."""
        self.listing = listing

    def fetch(self, index: NDArray[np.int64]) -> Iterator[Picture]:
        """Read the images at ``index`` (B,), one by one.

        Raises:
            BingoError: an image is gone, or not the one that was listed.
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
            raise BingoError(f"{listing.path(i)}: has changed since it was {self._done}; {self._remedy}")
        height, width = listing.size[i].tolist()
        return Picture(str(listing.path(i)), content, (height, width))

    _done: str
    _remedy: str

    @abstractmethod
    def _read(self, i: int) -> bytes:
        """Return the bytes of image ``i``."""


class FolderImages(_EncodedImages):
    """The files of a folder."""

    _done, _remedy = "listed", "list the data anew (snakemake --forcerun data)"

    def _read(self, i: int) -> bytes:
        return self.listing.path(i).read_bytes()


class PackImages(_EncodedImages):
    """The images of a pack, read side by side by any number of processes and threads."""

    _done, _remedy = "packed", "delete the pack and run again"

    @cached_property
    def _file(self) -> FileIO:
        return self.listing.root.open("rb", buffering=0)

    def __getstate__(self) -> dict[str, Any]:
        """Leave the open file out: a process that is not forked opens its own."""
        return {"listing": self.listing}

    def _read(self, i: int) -> bytes:
        assert self.listing.nbytes is not None
        assert self.listing.offset is not None
        # It names its place and moves no pointer, so forked processes may share the open file.
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
    """Return views of the images at ``index`` (B,), one for each of ``parameters``; each image is read once.

    Raises:
        BingoError: an image cannot be read.
    """
    if len(index) == 0:  # this process has no part in a short batch
        nothing = torch.empty(0, 3, preprocessing.size, preprocessing.size, dtype=torch.uint8)
        return {name: ViewPixels(nothing, True, drawn) for name, drawn in parameters.items()}
    source = images.fetch(index)
    if isinstance(source, Tensor):
        return {name: ViewPixels(source, False, drawn) for name, drawn in parameters.items()}
    if preprocessing.decoder == "nvjpeg":
        batch = EncodedBatch(source)
        return {name: ViewPixels(batch, False, drawn) for name, drawn in parameters.items()}
    crops = crop_each(source, list(parameters.values()), preprocessing.size, recipe.interpolation)
    return {name: ViewPixels(crop, True, drawn) for (name, drawn), crop in zip(parameters.items(), crops, strict=True)}
