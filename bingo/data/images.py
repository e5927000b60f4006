"""Pixels of a listing's images, by position."""

from collections.abc import Iterator
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bingo.artifacts import digest_arrays
from bingo.data.arrays import load_arrays
from bingo.data.decode import BadImageError, decode
from bingo.data.listing import Listing
from bingo.errors import BingoError


class Images(Protocol):
    """Something that hands out pixels by position in the listing."""

    listing: Listing

    def fetch(self, index: NDArray[np.int64]) -> Tensor | Iterator[Tensor]:
        """Return the images at ``index`` (B,): uint8 (B, 3, H, W), or B of (3, H, W) where sizes differ.

        These are decoded as they are asked for: a batch of photographs would fill the memory.
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
        if rows is None or digest_arrays({"image": images, "label": labels}) != listing.source_digest:
            raise BingoError(f"data: {listing.source} in {listing.root} is not the set that was listed; list it anew")
        self.listing = listing
        self._pixels = torch.from_numpy(np.ascontiguousarray(images[rows].transpose(0, 3, 1, 2)))

    def fetch(self, index: NDArray[np.int64]) -> Tensor:
        """Return the images at ``index`` (B,): uint8 (B, 3, H, W)."""
        pixels = self._pixels[torch.from_numpy(index)]
        return pixels.expand(-1, 3, -1, -1)


class FolderImages:
    """Image files, decoded when asked for."""

    def __init__(self, listing: Listing) -> None:
        """Remember the listing; nothing is read yet."""
        self.listing = listing

    def fetch(self, index: NDArray[np.int64]) -> Iterator[Tensor]:
        """Decode the images at ``index`` (B,), one by one: B of uint8 (3, H, W).

        Raises:
            BingoError: a file is gone, cannot be decoded, or is not the one that was listed.
        """
        return (self._read(int(i)) for i in index)

    def _read(self, i: int) -> Tensor:
        assert self.listing.paths is not None
        assert self.listing.nbytes is not None
        path = self.listing.root / self.listing.paths[i]
        try:
            content = path.read_bytes()
            pixels = decode(content)
        except OSError as error:
            raise BingoError(f"{path}: cannot be read ({error.strerror}); list the data anew") from error
        except BadImageError as error:
            raise BingoError(f"{path}: cannot be decoded ({error}); repair it, or list the data anew") from error
        if len(content) != self.listing.nbytes[i] or pixels.shape[1:] != tuple(self.listing.size[i]):
            raise BingoError(f"{path}: has changed since it was listed; list the data anew")
        return pixels


def open_images(listing: Listing) -> Images:
    """Return the images of a listing."""
    return FolderImages(listing) if listing.source == "folder" else ArrayImages(listing)
