"""Bags of groups: the images are divided, and each one's bag is its group."""

import numpy as np
from numpy.typing import NDArray

from bingo.bags.bags import Bags
from bingo.bags.checks import require_images
from bingo.errors import BingoError
from bingo.philox import Stream, permutation


def group_bags(group: NDArray[np.int64]) -> Bags:
    """Return a bag for each number in ``group``, members in the order of their positions.

    Holds O(N), however large a group.

    Args:
        group: (N,) any numbers, equal for images of one bag; those that do not occur leave no empty bag.
    """
    _, bag_of, sizes = np.unique(group, return_inverse=True, return_counts=True)
    return Bags(
        bag_of=bag_of,
        indptr=np.concatenate([[0], np.cumsum(sizes)]),
        members=np.argsort(bag_of, kind="stable"),
        includes_anchor=True,
    )


def label_bags(labels: NDArray[np.int64]) -> Bags:
    """Return a bag for each class; an image without a label is a bag of its own.

    Args:
        labels: (N,), -1 where unknown.

    Raises:
        BingoError: no image has a label.
    """
    if (labels < 0).all():
        raise BingoError(
            "bags: criterion label needs labels, but no training image has one; choose knn, kmeans or random"
        )
    alone = labels.max() + 1 + np.arange(len(labels))
    return group_bags(np.where(labels >= 0, labels, alone))


def random_bags(count: int, size: int, seed: int) -> Bags:
    """Divide ``count`` images at random into as many groups as have ``size`` others for each image.

    Groups differ by at most one image. A pure function of its arguments.

    Args:
        count: number of images N.
        size: other images in a bag, at least: 1 to N - 1.
        seed: below 2**32.

    Raises:
        BingoError: ``size`` is not below N.
    """
    require_images("size", size, size + 1, count)
    groups = count // (size + 1)
    group = np.empty(count, dtype=np.int64)
    group[permutation(seed, Stream.GROUP, 0, count)] = np.arange(count) * groups // count
    return group_bags(group)
