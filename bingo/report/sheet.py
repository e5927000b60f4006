"""A contact sheet: anchors in the first column, members of their bags to the right."""

from pathlib import Path

import matplotlib

matplotlib.use("agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray
from torch import Tensor
from torchvision.transforms.v2 import functional as V

from bingo.artifacts.files import atomic_write_checked
from bingo.bags.bags import Bags
from bingo.data.images import Images
from bingo.errors import BingoError
from bingo.philox import Stream, permutation
from bingo.study.report_jobs import Page

_ROWS, _COLUMNS = 12, 10
_SIDE = 160
"""Larger images are shrunk to this many pixels; a sheet shows no more of them."""
_TITLES = (18, 16)
"""Letters that fit above an anchor and above a member."""


def choose_anchors(bags: Bags, label: NDArray[np.int64], page: Page) -> NDArray[np.int64]:
    """Return up to a dozen anchors to show, the same ones every time: int64 positions.

    Args:
        bags: of N images.
        label: (N,), -1 where unknown.
        page: `random`, a dozen drawn at random, by rising position; `more`, the dozen drawn next; `best` and `worst`,
            those with the highest and lowest share of members of their class, among equals of highest and lowest mean
            similarity where it is known, and at random where that does not decide. Without labels similarity alone
            counts. No two of the best or worst have the same bag.

    Raises:
        BingoError: `more` of no more than a dozen images, or nothing by which bags are better or worse.
    """
    drawn = permutation(0, Stream.SHEET, 0, len(label))
    if page in ("random", "more"):
        first = _ROWS if page == "more" else 0
        if len(drawn) <= first:
            raise BingoError(f"sheet: page {page} needs more than {first} images, but there are {len(drawn)}")
        return np.sort(drawn[first : first + _ROWS])
    merits = [bags.same_class_share(label)] if (label >= 0).any() else []
    if bags.similarity is not None:
        merits.append(_mean_similarity(bags))
    if not merits:
        raise BingoError(f"sheet: page {page} needs labels, or bags of criterion knn; choose random or more")
    ranked = drawn[np.isfinite(merits[0][drawn])]
    if not len(ranked):
        raise BingoError(f"sheet: page {page} needs a bag with two images that have labels; choose random or more")
    sign = -1 if page == "best" else 1
    ranked = ranked[np.lexsort([sign * merit[ranked] for merit in reversed(merits)])]
    _, first_of_bag = np.unique(bags.bag_of[ranked], return_index=True)
    return ranked[np.sort(first_of_bag)[:_ROWS]]


def _mean_similarity(bags: Bags) -> NDArray[np.float64]:
    """Return of each image the mean similarity of its bag's members: (N,)."""
    sizes = np.diff(bags.indptr)
    total = np.bincount(np.repeat(np.arange(len(sizes)), sizes), weights=bags.similarity)
    return (total / sizes)[bags.bag_of]


def draw_sheet(bags: Bags, images: Images, anchors: NDArray[np.int64], output: Path) -> None:
    """Draw anchors and up to ten members of each one's bag.

    Titles give the class where there are labels; members of another class have a broken red frame and a title with an
    unequal sign, and for knn bags the similarity stands below.

    Raises:
        BingoError: an image cannot be read.
    """
    listing = images.listing
    members = [_members(bags, int(anchor)) for anchor in anchors]
    columns = 1 + max(len(positions) for positions in members)
    figure, axes = plt.subplots(
        len(anchors),
        columns,
        figsize=(1.1 * columns, 1.3 * len(anchors)),
        squeeze=False,
        layout="constrained",
    )
    for axis in axes.flat:
        axis.axis("off")
    for row, (anchor, positions) in enumerate(zip(anchors, members, strict=True)):
        shown = np.concatenate([[anchor], bags.members[positions]])
        for column, image in enumerate(shown):
            axis = axes[row, column]
            _show(axis, images, image)
            label = listing.label[image]
            name = listing.classes[label] if label >= 0 else ""
            other = column > 0 and bool(name) and 0 <= listing.label[anchor] != label
            _frame(axis, other)
            title = f"anchor {name}" if column == 0 else f"≠ {name}" if other else name
            room = _TITLES[min(column, 1)]
            axis.set_title(title if len(title) <= room else f"{title[: room - 1]}…", fontsize=7, pad=3)
            if column > 0 and bags.similarity is not None:
                axis.set_xlabel(f"{bags.similarity[positions[column - 1]]:.2f}", fontsize=7, labelpad=3)
    with atomic_write_checked(output) as temporary:
        figure.savefig(temporary, dpi=110, metadata={"Software": None})
    plt.close(figure)


def _show(axis: Axes, images: Images, image: int) -> None:
    shown = next(iter(images.fetch(np.array([image]))))
    pixels = shown if isinstance(shown, Tensor) else shown.whole()  # (3, H, W)
    if max(pixels.shape) > _SIDE:
        pixels = V.resize(pixels, None, max_size=_SIDE, antialias=True)
    axis.imshow(pixels.permute(1, 2, 0).numpy(), interpolation="nearest")


def _frame(axis: Axes, other: bool) -> None:
    axis.axis("on")
    axis.set(xticks=[], yticks=[])
    for spine in axis.spines.values():
        if other:
            spine.set(color="tab:red", linewidth=2.5, linestyle=(0, (3, 1.2)), capstyle="butt")
        else:
            spine.set(color="0.8", linewidth=0.5)


def _members(bags: Bags, anchor: int) -> NDArray[np.int64]:
    """Return where up to ten members of the anchor's bag, itself left out, stand in ``bags.members``.

    Neighbours: the nearest. Groups: spread over the whole bag, whose members are in the order of the listing, where
    the first ten might be of one class. Nothing of the bag's size is built.
    """
    start, end = bags.indptr[bags.bag_of[anchor]], bags.indptr[bags.bag_of[anchor] + 1]
    shown = np.arange(min(end - start, _COLUMNS + 1))
    positions = start + (shown * (end - start) // len(shown) if bags.includes_anchor else shown)
    return positions[bags.members[positions] != anchor][:_COLUMNS]
