"""Select the labelled images that a protocol trains on."""

import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bingo.data.listing import Listing
from bingo.errors import BingoError
from bingo.philox import Stream, permutation


def stratified_rows(labels: NDArray[np.int64], share: float, least: int, seed: int) -> NDArray[np.int64]:
    """Draw the same fraction of every class at random. A pure function of its arguments.

    Args:
        labels: (N,) classes.
        share: fraction of each class, rounded to whole images.
        least: minimum number of images per class (or all images of a smaller class).
        seed: seed of the draw.

    Returns:
        Positions of the drawn images, sorted.
    """
    order = permutation(seed, Stream.LABELS, 0, len(labels))
    by_class = order[np.argsort(labels[order], kind="stable")]
    ends = np.cumsum(np.unique(labels, return_counts=True)[1])
    classes = np.split(by_class, ends[:-1])
    return np.sort(np.concatenate([rows[: max(least, round(share * len(rows)))] for rows in classes]))


def listed_rows(listing: Listing, path: Path) -> NDArray[np.int64]:
    """Return the positions, in a listing, of the images that a text file names.

    The file contains one file name per line, without folders, like SimCLR's lists for ImageNet
    (google-research/simclr, imagenet_subsets/).

    Raises:
        BingoError: the list cannot be read, is empty, contains an unknown or a duplicate name, or the dataset does not
            consist of files.
    """
    if listing.paths is None:
        raise BingoError(f"{path}: names files, but {listing.source} has none; remove data.label_lists")
    try:
        names = [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise BingoError(f"{path}: cannot be read as a list of image files ({error}); correct the path") from error
    if not names:
        raise BingoError(f"{path}: is empty; list at least one image")
    files = [os.fsdecode(name).rpartition("/")[2] for name in listing.paths]
    position = {name: row for row, name in enumerate(files)}
    if stray := next((name for name in names if name not in position), None):
        raise BingoError(
            f"{path}: names {stray}, which is not among the training images; use the list of this dataset and the "
            "complete dataset"
        )
    rows = np.array(sorted({position[name] for name in names}), dtype=np.int64)
    duplicates = len(names) - len(rows) or len(files) - len(position)
    if duplicates:
        raise BingoError(
            f"{path}: {duplicates} file names occur more than once, in the list or in the dataset; make them unique"
        )
    return rows
