"""Computing features of every image in the listing's order, and the HDF5 file that holds them."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from bingo.artifacts import read_hdf5, require_same
from bingo.data.images import Images
from bingo.data.listing import Listing
from bingo.data.loader import load
from bingo.engine.distributed import shared_out
from bingo.errors import BingoError
from bingo.sections import Preprocessing
from bingo.tensors import network_digest, read_metadata
from bingo.views.apply import centre, normalise
from bingo.views.recipes import Interpolation

_BATCH = 256


@dataclass(frozen=True)
class Embeddings:
    """Features of N images in the order of their listing."""

    features: NDArray[np.float32]
    """(N, D), the backbone's pooled output."""
    teacher_digest: str
    digest: str


class CentreViews:
    """Batches of centre views, in order."""

    def __init__(self, images: Images, preprocessing: Preprocessing, interpolation: Interpolation) -> None:
        """Describe the batches; nothing is read yet."""
        self.images, self.preprocessing, self.interpolation = images, preprocessing, interpolation

    def __len__(self) -> int:
        """Return the number of batches."""
        return -(-len(self.images.listing) // _BATCH)

    def __getitem__(self, batch: int) -> Tensor:
        """Return uint8 (B, 3, S, S).

        Raises:
            BingoError: an image cannot be read.
        """
        rows = np.arange(batch * _BATCH, min((batch + 1) * _BATCH, len(self.images.listing)))
        return centre(self.images.fetch(rows), self.preprocessing, self.interpolation)


@torch.inference_mode()
def embed(
    network: nn.Module,
    images: Images,
    preprocessing: Preprocessing,
    device: torch.device,
    workers: int,
    interpolation: Interpolation,
) -> Iterator[Tensor]:
    """Yield ``network``'s float32 output for the centre view of every image, batch after batch, in order.

    Several processes share the batches; the first one gets all outputs, the others none. The network is taken as it
    is: the caller has put it on ``device`` and into eval mode. It runs in float32 on any hardware, so that measured
    numbers do not depend on the machine's number formats.

    Raises:
        BingoError: an image cannot be read.
    """
    views = CentreViews(images, preprocessing, interpolation)

    def compute(places: Iterable[int]) -> Iterator[Tensor]:
        for pixels in load(views, places, workers):
            yield network(normalise(pixels.to(device) / 255, preprocessing)).cpu()

    yield from shared_out(range(len(views)), compute)


def read_embeddings(path: Path, listing_path: Path, listing: Listing, teacher_path: Path) -> Embeddings:
    """Read embeddings and check that they are whole and of this dataset and teacher.

    Raises:
        BingoError: they are damaged, or belong to another dataset or teacher.
    """
    teacher = network_digest(read_metadata(teacher_path))
    with read_hdf5(path, "embeddings") as file:
        require_same(path, "dataset", file.attrs["dataset_digest"], listing.digest, listing_path)
        require_same(path, "teacher", file.attrs["teacher_digest"], teacher, teacher_path)
        if len(file["embedding"]) != len(listing) or (file["index"][:] != np.arange(len(listing))).any():
            raise BingoError(f"{path}: rows are not those of {listing_path}; delete it and run again")
        features = np.empty(file["embedding"].shape, dtype=np.float32)
        file["embedding"].read_direct(features)
        return Embeddings(features, file.attrs["teacher_digest"], file.attrs["digest"])
