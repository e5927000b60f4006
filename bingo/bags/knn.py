"""Bags of nearest neighbours, found with faiss by exact or approximate (IVF) search."""

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
    features: RowSource, size: int, search: NeighbourSearch = "exact", neighbours: Neighbours | None = None
) -> Bags:
    """Return one bag per image: the ``size`` other images with the largest cosine similarity, most similar first.

    BINGO uses 5 neighbours and exact search. For an approximate search, the recall on up to 1,000 images is stored in
    the attributes ``recall`` and ``recall_sample``.

    Args:
        features: (N, D).
        size: members per bag, 1 to N - 1.
        search: exact or approximate search.
        neighbours: result of `find_neighbours` for all rows, if already computed.

    Raises:
        BingoError: ``size`` is N or more, an index has more than N lists, or a feature is not finite.
    """
    count = len(features)
    similarity, members = neighbours or find_neighbours(features, size, search, range(count))
    attributes = {"mean_similarity": float(similarity.mean())}
    if isinstance(search, IvfSearch):
        attributes |= {"recall": measure_recall(features, members), "recall_sample": min(count, _RECALL_SAMPLE)}
        log.info("recall: %.4f of the exact neighbours, measured on %d images", *list(attributes.values())[1:])
    return Bags(
        bag_of=np.arange(count),
        indptr=np.arange(0, count * size + 1, size),
        members=members.reshape(-1),
        includes_anchor=False,
        similarity=similarity.reshape(-1),
        attributes=attributes,
    )


def find_neighbours(features: RowSource, size: int, search: NeighbourSearch, rows: range) -> Neighbours:
    """Return similarity and position of the nearest other images of R rows: float32 and int64 (R, size).

    Args:
        features: (N, D).
        size: neighbours per image, 1 to N - 1.
        search: exact or approximate search.
        rows: the query rows; start at a multiple of `bingo.bags.neighbours.QUERY_BLOCK`.

    Raises:
        BingoError: as `knn_bags`.
    """
    require_images("size", size, size + 1, len(features))
    units = UnitRows(features)
    similarity = np.empty((len(rows), size), dtype=np.float32)
    members = np.empty((len(rows), size), dtype=np.int64)
    with Progress("bags", len(rows), "images") as progress:
        for part, block_similarity, block_members in _search(units, size + 1, search, rows):  # (b, size + 1)
            images = np.arange(part.start, part.stop)
            at = images - rows.start
            similarity[at], members[at] = without_self(block_similarity, block_members, images)
            progress.advance(part.stop - part.start)
    # The probed lists may contain fewer than `size` other images.
    short = rows.start + np.flatnonzero((members < 0).any(axis=1))
    if len(short):
        log.info("%s images have too few neighbours in the probed lists; using exact search", f"{len(short):,}")
    for part in query_blocks(rows):
        images = short[(short >= part.start) & (short < part.stop)]
        # At most QUERY_BLOCK queries, so the generator yields one block.
        for _, block_similarity, block_members in nearest_neighbours(take_rows(units, images), units, size + 1):
            at = images - rows.start
            similarity[at], members[at] = without_self(block_similarity, block_members, images)
    return similarity, members


def _search(units: UnitRows, k: int, search: NeighbourSearch, rows: range) -> Iterator[Block]:
    if isinstance(search, IvfSearch):
        return ivf_neighbours(units, k, search.ivf, rows)
    return nearest_neighbours(units, units, k, rows)


def measure_recall(features: RowSource, members: NDArray[np.int64]) -> float:
    """Return the share of the exact neighbours that are in ``members`` (N, k), averaged over a sample of images.

    A duplicate of an exact neighbour does not count, so datasets with repeated images get a lower value.
    """
    units, size = UnitRows(features), members.shape[1]
    sample = np.sort(permutation(0, Stream.RECALL, 0, len(members))[:_RECALL_SAMPLE])
    recalls = []
    for part, similarity, nearest in nearest_neighbours(take_rows(units, sample), units, size + 1):
        _, exact = without_self(similarity, nearest, sample[part])  # (b, k)
        recalls.append((members[sample[part], :, None] == exact[:, None]).any(axis=1).mean(axis=1))  # (b,)
    return float(np.concatenate(recalls).mean())


def without_self(
    similarity: NDArray[np.float32], members: NDArray[np.int64], images: NDArray[np.int64]
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Remove each image from its own neighbours: (b, k + 1) to (b, k).

    Args:
        similarity: (b, k + 1), in descending order.
        members: (b, k + 1) positions. With many identical images, an image may not be among its own neighbours. Then
            the last neighbour is dropped.
        images: (b,) position of each row's image.
    """
    count, width = members.shape
    drop = members == images[:, None]  # (b, k + 1)
    drop[~drop.any(axis=1), -1] = True
    return similarity[~drop].reshape(count, width - 1), members[~drop].reshape(count, width - 1)
