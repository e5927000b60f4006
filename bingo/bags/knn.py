"""Bags of nearest neighbours, searched with faiss: exactly, or among the nearest of an index's lists."""

import logging
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from bingo.bags.bags import Bags
from bingo.bags.checks import require_images
from bingo.bags.ivf import ivf_neighbours
from bingo.bags.neighbours import Block, Neighbours, RowSource, UnitRows, nearest_neighbours, query_blocks, take_rows
from bingo.philox import Stream, permutation
from bingo.progress import Progress
from bingo.study.bags import IvfSearch, NeighbourSearch

log = logging.getLogger(__name__)
_RECALL_SAMPLE = 1000


def knn_bags(
    features: RowSource, size: int, search: NeighbourSearch = "exact", found: Neighbours | None = None
) -> Bags:
    """Return for each image the ``size`` others with the largest cosine similarity, most similar first.

    BINGO uses 5 neighbours, searched exactly. What an approximate search finds is compared with the exact search for
    at most 1,000 images: attributes ``recall`` and ``recall_sample``.

    Args:
        features: (N, D).
        size: members per bag, 1 to N - 1.
        search: how to find them.
        found: what `find_neighbours` returns for all rows, where that has been done.

    Raises:
        BingoError: ``size`` is not below N, an index has more lists than N, or features hold a value that is not
            finite.
    """
    count = len(features)
    similarity, members = found or find_neighbours(features, size, search, range(count))
    attributes = {"mean_similarity": float(similarity.mean())}
    if isinstance(search, IvfSearch):
        attributes |= {"recall": measure_recall(features, members), "recall_sample": min(count, _RECALL_SAMPLE)}
        log.info("recall: %.4f of the exact neighbours of %d images", *list(attributes.values())[1:])
    return Bags(
        bag_of=np.arange(count),
        indptr=np.arange(0, count * size + 1, size),
        members=members.reshape(-1),
        includes_anchor=False,
        similarity=similarity.reshape(-1),
        attributes=attributes,
    )


def find_neighbours(features: RowSource, size: int, search: NeighbourSearch, rows: range) -> Neighbours:
    """Return similarity and position of the nearest others of some rows: float32 and int64 (b, size).

    Args:
        features: (N, D).
        size: others per image, 1 to N - 1.
        search: how to find them.
        rows: whom to find neighbours for, from a multiple of `bingo.bags.neighbours.QUERY_BLOCK` on.

    Raises:
        BingoError: as `knn_bags`.
    """
    require_images("size", size, size + 1, len(features))
    unit = UnitRows(features)
    similarity = np.empty((len(rows), size), dtype=np.float32)
    members = np.empty((len(rows), size), dtype=np.int64)
    with Progress("bags", len(rows), "images") as progress:
        for part, found_similarity, found_members in _search(unit, size + 1, search, rows):
            own = np.arange(part.start, part.stop)
            at = own - rows.start
            similarity[at], members[at] = without_self(found_similarity, found_members, own)
            progress.advance(part.stop - part.start)
    # An index may hold fewer images in the lists that it looks into.
    short = rows.start + np.flatnonzero((members < 0).any(axis=1))
    if len(short):
        log.info("%s images found too few others in the probed lists: searched exactly", f"{len(short):,}")
    for part in query_blocks(rows):
        own = short[(short >= part.start) & (short < part.stop)]
        # So few that they are one unit again.
        for _, found_similarity, found_members in nearest_neighbours(take_rows(unit, own), unit, size + 1):
            at = own - rows.start
            similarity[at], members[at] = without_self(found_similarity, found_members, own)
    return similarity, members


def _search(unit: UnitRows, k: int, search: NeighbourSearch, rows: range) -> Iterator[Block]:
    if isinstance(search, IvfSearch):
        return ivf_neighbours(unit, k, search.ivf, rows)
    return nearest_neighbours(unit, unit, k, rows)


def measure_recall(features: RowSource, members: NDArray[np.int64]) -> float:
    """Return the share of images' exact neighbours that are among ``members`` (N, k), over a sample of images.

    Which of several equal images is found does count: where images are repeated, neighbours are better than this says.
    """
    unit, size = UnitRows(features), members.shape[1]
    sample = np.sort(permutation(0, Stream.RECALL, 0, len(members))[:_RECALL_SAMPLE])
    shares = []
    for part, similarity, found in nearest_neighbours(take_rows(unit, sample), unit, size + 1):
        _, exact = without_self(similarity, found, sample[part])
        shares.append((members[sample[part], :, None] == exact[:, None]).any(axis=1).mean(axis=1))
    return float(np.concatenate(shares).mean())


def without_self(
    similarity: NDArray[np.float32], members: NDArray[np.int64], images: NDArray[np.int64]
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Drop each image from its own neighbours: (b, k + 1) to (b, k).

    Args:
        similarity: (b, k + 1), falling.
        members: (b, k + 1) positions. Among many equal images the image itself may be missing from its row: then the
            last neighbour is dropped.
        images: (b,) position of each row's image.
    """
    count, width = members.shape
    own = members == images[:, None]
    own[~own.any(axis=1), -1] = True
    return similarity[~own].reshape(count, width - 1), members[~own].reshape(count, width - 1)
