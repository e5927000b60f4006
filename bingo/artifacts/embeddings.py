"""Read the embeddings file (HDF5). Does not import torch."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from bingo.artifacts.hdf5 import read_hdf5
from bingo.artifacts.provenance import require_same
from bingo.artifacts.tensors import network_digest, read_metadata
from bingo.errors import BingoError


@dataclass(frozen=True)
class Embeddings:
    """Features of N images, in the order of the listing."""

    features: h5py.Dataset
    """(N, D) pooled output of the backbone; slicing reads from the file."""
    teacher_digest: str
    digest: str


@contextmanager
def open_embeddings(
    path: Path, listing_path: Path, dataset: str, count: int, teacher_path: Path
) -> Iterator[Embeddings]:
    """Open an embeddings file and check that it belongs to this dataset and teacher. Rows are read on access.

    Args:
        path: HDF5 file of embeddings.
        listing_path: listing of the images, for error messages.
        dataset: digest of the listing.
        count: number of images.
        teacher_path: teacher that the embeddings must come from.

    Raises:
        BingoError: the file belongs to another dataset or teacher, or is damaged. Damage may show only later, while
            rows are read.
    """
    teacher = network_digest(read_metadata(teacher_path))
    with read_hdf5(path, "embeddings") as file:
        require_same(path, "dataset", file.attrs["dataset_digest"], dataset, listing_path)
        require_same(path, "teacher", file.attrs["teacher_digest"], teacher, teacher_path)
        if len(file["embedding"]) != count or (file["index"][:] != np.arange(count)).any():
            raise BingoError(f"{path}: rows do not match {listing_path}; delete it and run again")
        yield Embeddings(file["embedding"], file.attrs["teacher_digest"], file.attrs["digest"])
