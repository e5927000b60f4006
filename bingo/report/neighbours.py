"""What the teacher's nearest neighbours are worth: do they show the anchor's class, and how similar are they?"""

from collections.abc import Sequence
from math import isnan
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.ticker import MaxNLocator, NullLocator, PercentFormatter, StrMethodFormatter
from numpy.typing import NDArray

from bingo.artifacts.embeddings import open_embeddings
from bingo.artifacts.provenance import require_same
from bingo.bags.bags import Bags, read_bags
from bingo.bags.knn import without_self
from bingo.bags.neighbours import RowSource, UnitRows, nearest_neighbours, take_rows
from bingo.data.listing import read_listing
from bingo.errors import BingoError
from bingo.philox import Stream, permutation
from bingo.progress import Progress
from bingo.report.style import SMALL, WIDTH, line_style, marker_style, new_figure, save, styled

SIZES = (1, 2, 5, 10, 20, 50, 100)
_ANCHORS = 10_000
_BINS = 50


class Purity(NamedTuple):
    """What the nearest neighbours of some anchors have in common with them, for S sizes K."""

    share: NDArray[np.float64]
    """(S,) share of the K nearest with the anchor's class, of those with a label; NaN where none has one."""
    similarity: NDArray[np.float64]
    """(S,) cosine similarity of the K-th nearest."""
    chance: float
    """Share that images drawn at random would have."""


@styled
def draw_purity(listing_path: Path, embeddings_path: Path, teacher_path: Path, outputs: Sequence[Path]) -> None:
    """Draw purity and similarity of the nearest neighbours against their number, of at most 10,000 anchors.

    Raises:
        BingoError: fewer than two training images have labels, the embeddings belong to another dataset or teacher,
            or hold a value that is not finite.
    """
    listing = read_listing(listing_path, "train")
    labelled = np.flatnonzero(listing.label >= 0)
    if len(labelled) < 2:
        raise BingoError(f"{listing_path}: purity needs labels, but fewer than two training images have one")
    anchors = np.sort(labelled[permutation(0, Stream.SHEET, 0, len(labelled))[:_ANCHORS]])
    sizes = [size for size in SIZES if size < len(listing)]
    with open_embeddings(embeddings_path, listing_path, listing.digest, len(listing), teacher_path) as embeddings:
        purity = purity_by_size(UnitRows(embeddings.features), listing.label, anchors, sizes)
    figure = new_figure(WIDTH, 2.7)
    left, right = figure.subplots(1, 2)
    for axes, values in ((left, purity.share), (right, purity.similarity)):
        axes.plot(sizes, values, **marker_style(0), clip_on=False)
        axes.set(xscale="log", xlabel="nearest neighbours K", xlim=(sizes[0] / 1.6, sizes[-1] * 1.6))
        axes.set_xticks(sizes, [str(size) for size in sizes])
        axes.xaxis.set_minor_locator(NullLocator())
        axes.grid(axis="y", color="0.9", linewidth=0.5)
    left.axhline(purity.chance, color="0.3", linestyle="--", linewidth=1, label=f"by chance, {purity.chance:.1%}")
    for size, share in zip(sizes, purity.share, strict=True):
        if not isnan(share):
            note = {"textcoords": "offset points", "ha": "center", "fontsize": SMALL}
            left.annotate(f"{share:.1%}", (size, share), (0, 5), **note)
    left.set(ylim=(0, 1.05), ylabel="purity: share with the anchor's class")
    left.yaxis.set_major_formatter(PercentFormatter(1))
    right.set_ylabel("mean cosine similarity at rank K")
    figure.legend(loc="outside lower center", handlelength=3)
    save(figure, outputs)


def purity_by_size(
    features: RowSource, label: NDArray[np.int64], anchors: NDArray[np.int64], sizes: Sequence[int]
) -> Purity:
    """Look up the exact nearest neighbours of anchors among all images, each anchor itself left out.

    Args:
        features: (N, D) float32 of unit length.
        label: (N,), -1 where unknown.
        anchors: (A,) positions of images with a label; at least one other image has one.
        sizes: numbers K of neighbours, rising, each below N.
    """
    ranks = np.asarray(sizes) - 1
    shares, counted = np.zeros(len(ranks)), np.zeros(len(ranks), dtype=np.int64)
    similarity = np.zeros(len(ranks))
    with Progress("purity", len(anchors), "anchors") as progress:
        for rows, values, found in nearest_neighbours(take_rows(features, anchors), features, sizes[-1] + 1):
            own = anchors[rows, None]
            values, found = without_self(values, found, anchors[rows])
            classes = label[found]
            known = np.cumsum(classes >= 0, axis=1)[:, ranks]  # (b, S)
            same = np.cumsum(classes == label[own], axis=1)[:, ranks]
            shares += np.divide(same, known, out=np.zeros(same.shape), where=known > 0).sum(axis=0)
            counted += (known > 0).sum(axis=0)
            similarity += values[:, ranks].sum(axis=0, dtype=np.float64)
            progress.advance(len(own))
    share = np.divide(shares, counted, out=np.full(len(ranks), np.nan), where=counted > 0)
    sizes_of_classes = np.bincount(label[label >= 0])
    chance = (sizes_of_classes[label[anchors]] - 1).mean() / (sizes_of_classes.sum() - 1)
    return Purity(share, similarity / len(anchors), float(chance))


@styled
def draw_similarity(listing_path: Path, bags_path: Path, outputs: Sequence[Path]) -> None:
    """Draw how similar the members of bags are to their anchors: a histogram, by class where there are labels.

    Raises:
        BingoError: the bags belong to another dataset, or are not of nearest neighbours.
    """
    listing = read_listing(listing_path, "train")
    bags = read_bags(bags_path)
    require_same(bags_path, "dataset", bags.attributes["dataset_digest"], listing.digest, listing_path)
    if bags.similarity is None:
        raise BingoError(f"{bags_path}: holds no similarities, which only bags of criterion knn have; name such bags")
    edges = np.histogram_bin_edges(bags.similarity, _BINS)
    groups = similarities_by_class(bags, listing.label)
    figure = new_figure(WIDTH * 2 / 3, 2.6)
    axes = figure.subplots()
    for number, (name, values) in enumerate(groups.items()):
        counts, _ = np.histogram(values, edges)
        look = line_style(number)
        text = f"{name}, {len(values) / len(bags.similarity):.1%}"
        axes.stairs(counts, edges, label=text, linestyle=look["linestyle"], edgecolor=look["color"], linewidth=1.4)
        axes.stairs(counts, edges, fill=True, color=look["color"], alpha=0.15)
    axes.set(xlabel="cosine similarity of member and anchor", ylabel="members", ylim=(0, None))
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.margins(x=0)
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    figure.legend(loc="outside lower center", ncols=3, handlelength=3)
    save(figure, outputs)


def similarities_by_class(bags: Bags, label: NDArray[np.int64]) -> dict[str, NDArray[np.float32]]:
    """Return the similarities of members that have the anchor's class, of those that do not, and of the others.

    Groups that nobody is in are left out.

    Args:
        bags: of nearest neighbours, a bag for each image.
        label: (N,), -1 where unknown.
    """
    assert bags.similarity is not None
    anchors = np.repeat(np.argsort(bags.bag_of), np.diff(bags.indptr))
    known = (label[anchors] >= 0) & (label[bags.members] >= 0)
    same = known & (label[anchors] == label[bags.members])
    groups = {"same class": same, "another class": known & ~same, "class unknown": ~known}
    return {name: bags.similarity[chosen] for name, chosen in groups.items() if chosen.any()}
