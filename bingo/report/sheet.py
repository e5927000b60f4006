"""Contact sheets of bags: anchors in the first column, members of their bags to the right."""

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
"""Maximum side of an image in pixels; larger images are resized."""
_TITLES = (18, 16)
"""Maximum number of characters of the title of an anchor and of a member."""


def choose_anchors(bags: Bags, label: NDArray[np.int64], page: Page) -> NDArray[np.int64]:
    """Return the positions of up to twelve anchors to show (int64), always the same for the same bags.

    Args:
        bags: bags of N images.
        label: (N,), -1 if unknown.
        page: `random`: twelve random anchors; `more`: the next twelve; both in ascending order. `best` and `worst`:
            anchors with the highest and lowest fraction of members of their class; ties are decided by mean similarity
            if known, then at random. Without labels, only similarity counts. `best` and `worst` show a bag only once.

    Raises:
        BingoError: there are too few images for `more`, or neither labels nor similarities for `best` and `worst`.
    """
    order = permutation(0, Stream.SHEET, 0, len(label))
    if page in ("random", "more"):
        first = _ROWS if page == "more" else 0
        if len(order) <= first:
            message = f"page {page} needs more than {first} images, but there are {len(order)}"
            raise BingoError(f"sheet: {message}; choose another page")
        return np.sort(order[first : first + _ROWS])
    scores = [bags.same_class_share(label)] if (label >= 0).any() else []
    if bags.similarity is not None:
        scores.append(_mean_similarity(bags))
    if not scores:
        raise BingoError(f"sheet: page {page} needs labels or bags with criterion knn; choose random or more")
    ranked = order[np.isfinite(scores[0][order])]
    if not len(ranked):
        raise BingoError(f"sheet: page {page} needs a bag with two labelled images; choose random or more")
    sign = -1 if page == "best" else 1
    ranked = ranked[np.lexsort([sign * score[ranked] for score in reversed(scores)])]
    _, first_of_bag = np.unique(bags.bag_of[ranked], return_index=True)
    return ranked[np.sort(first_of_bag)[:_ROWS]]


def _mean_similarity(bags: Bags) -> NDArray[np.float64]:
    """Return the mean similarity of the bag members of each image: (N,)."""
    sizes = np.diff(bags.indptr)
    total = np.bincount(np.repeat(np.arange(len(sizes)), sizes), weights=bags.similarity)
    return (total / sizes)[bags.bag_of]


def draw_sheet(bags: Bags, images: Images, anchors: NDArray[np.int64], output: Path) -> None:
    """Draw anchors with up to ten members of their bags.

    Titles show the class if known. Members of another class have a dashed red frame and a title with "≠". For knn bags,
    the similarity is below each member.

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
        row_images = np.concatenate([[anchor], bags.members[positions]])
        for column, image in enumerate(row_images):
            axis = axes[row, column]
            _show(axis, images, image)
            label = listing.label[image]
            name = listing.classes[label] if label >= 0 else ""
            is_other_class = column > 0 and bool(name) and 0 <= listing.label[anchor] != label
            _frame(axis, is_other_class)
            title = f"anchor {name}" if column == 0 else f"≠ {name}" if is_other_class else name
            limit = _TITLES[min(column, 1)]
            axis.set_title(title if len(title) <= limit else f"{title[: limit - 1]}…", fontsize=7, pad=3)
            if column > 0 and bags.similarity is not None:
                axis.set_xlabel(f"{bags.similarity[positions[column - 1]]:.2f}", fontsize=7, labelpad=3)
    with atomic_write_checked(output) as temporary:
        figure.savefig(temporary, dpi=110, metadata={"Software": None})
    plt.close(figure)


def _show(axis: Axes, images: Images, image: int) -> None:
    picture = next(iter(images.fetch(np.array([image]))))
    pixels = picture if isinstance(picture, Tensor) else picture.whole()  # (3, H, W)
    if max(pixels.shape) > _SIDE:
        pixels = V.resize(pixels, None, max_size=_SIDE, antialias=True)
    axis.imshow(pixels.permute(1, 2, 0).numpy(), interpolation="nearest")


def _frame(axis: Axes, is_other_class: bool) -> None:
    axis.axis("on")
    axis.set(xticks=[], yticks=[])
    for spine in axis.spines.values():
        if is_other_class:
            spine.set(color="tab:red", linewidth=2.5, linestyle=(0, (3, 1.2)), capstyle="butt")
        else:
            spine.set(color="0.8", linewidth=0.5)


def _members(bags: Bags, anchor: int) -> NDArray[np.int64]:
    """Return the positions in ``bags.members`` of up to ten members of the anchor's bag, without the anchor.

    For neighbours, these are the nearest. For groups, they are spread evenly over the bag, because members are in
    listing order and the first ten may share a class.
    """
    start, end = bags.indptr[bags.bag_of[anchor]], bags.indptr[bags.bag_of[anchor] + 1]
    steps = np.arange(min(end - start, _COLUMNS + 1))
    positions = start + (steps * (end - start) // len(steps) if bags.includes_anchor else steps)
    return positions[bags.members[positions] != anchor][:_COLUMNS]
