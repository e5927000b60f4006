"""Which labelled images a protocol may train on."""

import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bingo.data.listing import Listing
from bingo.errors import BingoError
from bingo.philox import Stream, permutation


def stratified_rows(labels: NDArray[np.int64], share: float, least: int, seed: int) -> NDArray[np.int64]:
    """Draw the same share of every class at random, a pure function of the arguments.

    Args:
        labels: (N,) classes.
        share: of each class, rounded to whole images.
        least: images drawn of each class at least (of one that has as many).
        seed: seed of the draw.

    Returns:
        The positions drawn, in rising order.
    """
    order = permutation(seed, Stream.LABELS, 0, len(labels))
    by_class = order[np.argsort(labels[order], kind="stable")]
    ends = np.cumsum(np.unique(labels, return_counts=True)[1])
    classes = np.split(by_class, ends[:-1])
    return np.sort(np.concatenate([own[: max(least, round(share * len(own)))] for own in classes]))


def listed_rows(listing: Listing, path: Path) -> NDArray[np.int64]:
    """Return where the image files that a text file names, one a line and without folder, stand in a listing.

    SimCLR's lists for ImageNet have this form (google-research/simclr, imagenet_subsets/).

    Raises:
        BingoError: the list cannot be read, names nothing, names a file that is not listed or listed twice, or the
            images are no files.
    """
    if listing.paths is None:
        raise BingoError(f"{path}: names files, but {listing.source} has none; leave data.label_lists out")
    try:
        names = [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise BingoError(f"{path}: cannot be read as a list of image files ({error}); correct the path") from error
    if not names:
        raise BingoError(f"{path}: names no image; take another list")
    files = [os.fsdecode(name).rpartition("/")[2] for name in listing.paths]
    position = {name: row for row, name in enumerate(files)}
    if stray := next((name for name in names if name not in position), None):
        raise BingoError(
            f"{path}: names {stray}, which is not among the training images; take this set's list, and all of the set"
        )
    rows = np.array(sorted({position[name] for name in names}), dtype=np.int64)
    twice = len(names) - len(rows) or len(files) - len(position)
    if twice:
        raise BingoError(f"{path}: {twice} file names stand for more than one image or line; make them unique")
    return rows
