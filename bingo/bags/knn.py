"""Bags of nearest neighbours, searched exactly with faiss."""

import numpy as np
from numpy.typing import NDArray

from bingo.bags.bags import Bags
from bingo.bags.checks import require_images, scale_features
from bingo.neighbours import nearest_neighbours
from bingo.progress import Progress


def knn_bags(features: NDArray[np.float32], size: int) -> Bags:
    """Return for each image the ``size`` others with the largest cosine similarity, most similar first.

    BINGO uses 5 neighbours.

    Args:
        features: (N, D) float32, scaled to unit length in place.
        size: members per bag, 1 to N - 1.

    Raises:
        BingoError: ``size`` is not below N, or features hold a value that is not finite.
    """
    count = len(features)
    require_images("size", size, size + 1, count)
    scale_features(features)
    members = np.empty((count, size), dtype=np.int64)
    similarity = np.empty((count, size), dtype=np.float32)
    with Progress("bags", count, "images") as progress:
        for rows, found_similarity, found_members in nearest_neighbours(features, features, size + 1):
            similarity[rows], members[rows] = without_self(found_similarity, found_members, rows.start)
            progress.advance(rows.stop - rows.start)
    return Bags(
        bag_of=np.arange(count),
        indptr=np.arange(0, count * size + 1, size),
        members=members.reshape(-1),
        includes_anchor=False,
        similarity=similarity.reshape(-1),
        attributes={"mean_similarity": float(similarity.mean())},
    )


def without_self(
    similarity: NDArray[np.float32], members: NDArray[np.int64], first: int
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Drop each image from its own neighbours: (b, k + 1) to (b, k).

    Args:
        similarity: (b, k + 1), falling.
        members: (b, k + 1) positions; row i is image ``first + i``. Among many equal images the image itself may
            be missing from its row: then the last neighbour is dropped.
        first: position of the first row.
    """
    count, width = members.shape
    own = members == np.arange(first, first + count)[:, None]
    own[~own.any(axis=1), -1] = True
    return similarity[~own].reshape(count, width - 1), members[~own].reshape(count, width - 1)
