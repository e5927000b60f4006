"""A contact sheet: anchors in the first column, members of their bags to the right."""

from pathlib import Path

import matplotlib

matplotlib.use("agg")
import matplotlib.pyplot as plt
import numpy as np
from numpy.typing import NDArray
from torchvision.transforms.v2 import functional as V

from bingo.artifacts import atomic
from bingo.bags.bags import Bags
from bingo.data.images import Images
from bingo.philox import Stream, permutation

_ROWS, _COLUMNS = 12, 10
_SIDE = 160
"""Larger images are shrunk to this many pixels; a sheet shows no more of them."""


def draw_sheet(bags: Bags, images: Images, output: Path) -> None:
    """Draw a dozen anchors, chosen at random once, and up to ten members of each one's bag.

    Titles give the class where there are labels; members of another class have a red frame, and for knn bags the
    similarity stands below.
    """
    listing = images.listing
    anchors = np.sort(permutation(0, Stream.SHEET, 0, len(listing))[:_ROWS])
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
            pixels = next(iter(images.fetch(np.array([image]))))  # (3, H, W)
            if max(pixels.shape) > _SIDE:
                pixels = V.resize(pixels, None, max_size=_SIDE, antialias=True)
            axis.imshow(pixels.permute(1, 2, 0).numpy(), interpolation="nearest")
            name = listing.classes[listing.label[image]] if listing.label[image] >= 0 else ""
            labelled = listing.label[anchor] >= 0
            other = column > 0 and labelled and listing.label[image] != listing.label[anchor]
            axis.axis("on")
            axis.set(xticks=[], yticks=[])
            for spine in axis.spines.values():
                spine.set(color="tab:red" if other and name else "0.8", linewidth=2 if other and name else 0.5)
            axis.set_title(f"anchor {name}" if column == 0 else name, fontsize=7, pad=2)
            if column > 0 and bags.similarity is not None:
                axis.set_xlabel(f"{bags.similarity[positions[column - 1]]:.2f}", fontsize=6, labelpad=1)
    with atomic(output) as temporary:
        figure.savefig(temporary, dpi=110, metadata={"Software": None})
    plt.close(figure)


def _members(bags: Bags, anchor: int) -> NDArray[np.int64]:
    """Return where up to ten members of the anchor's bag, itself left out, stand in ``bags.members``.

    Neighbours: the nearest. Groups: spread over the whole bag, whose members are in the order of the listing, where
    the first ten might be of one class. Nothing of the bag's size is built.
    """
    start, end = bags.indptr[bags.bag_of[anchor]], bags.indptr[bags.bag_of[anchor] + 1]
    shown = np.arange(min(end - start, _COLUMNS + 1))
    positions = start + (shown * (end - start) // len(shown) if bags.includes_anchor else shown)
    return positions[bags.members[positions] != anchor][:_COLUMNS]
