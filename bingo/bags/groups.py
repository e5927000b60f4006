"""Bags from groups: the groups partition the images, and an image's bag is its group."""

import numpy as np
from numpy.typing import NDArray

from bingo.bags.bags import Bags
from bingo.bags.checks import require_images
from bingo.errors import BingoError
from bingo.philox import Stream, permutation


def group_bags(group: NDArray[np.int64]) -> Bags:
    """Return one bag per distinct number in ``group``, with members sorted by position. Needs O(N) memory.

    Args:
        group: (N,) group of each image; any integers.
    """
    _, bag_of, sizes = np.unique(group, return_inverse=True, return_counts=True)
    return Bags(
        bag_of=bag_of,
        indptr=np.concatenate([[0], np.cumsum(sizes)]),
        members=np.argsort(bag_of, kind="stable"),
        includes_anchor=True,
    )


def label_bags(labels: NDArray[np.int64]) -> Bags:
    """Return one bag per class. An unlabelled image is alone in its bag.

    Args:
        labels: (N,), -1 where unknown.

    Raises:
        BingoError: no image has a label.
    """
    if (labels < 0).all():
        raise BingoError(
            "bags: criterion label needs labels, but no training image has one; choose knn, kmeans or random"
        )
    singletons = labels.max() + 1 + np.arange(len(labels))
    return group_bags(np.where(labels >= 0, labels, singletons))


def random_bags(count: int, size: int, seed: int) -> Bags:
    """Divide ``count`` images at random into groups of at least ``size`` + 1.

    Group sizes are as equal as possible. A pure function of its arguments.

    Args:
        count: number of images N.
        size: smallest number of other images in a bag, 1 to N - 1.
        seed: below 2**32.

    Raises:
        BingoError: ``size`` is N or more.
    """
    require_images("size", size, size + 1, count)
    groups = count // (size + 1)
    group = np.empty(count, dtype=np.int64)
    group[permutation(seed, Stream.GROUP, 0, count)] = np.arange(count) * groups // count
    return group_bags(group)
