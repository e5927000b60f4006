"""Figures of the quality of nearest neighbours: purity by class, and similarity to the anchor."""

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
    """Purity and similarity of nearest neighbours for S neighbourhood sizes K, averaged over anchors."""

    share: NDArray[np.float64]
    """(S,) fraction of the K nearest labelled images with the anchor's class; NaN if no neighbour is labelled."""
    similarity: NDArray[np.float64]
    """(S,) cosine similarity of the K-th nearest neighbour."""
    chance: float
    """Expected fraction for random images."""


@styled
def draw_purity(listing_path: Path, embeddings_path: Path, teacher_path: Path, outputs: Sequence[Path]) -> None:
    """Draw purity and similarity of the nearest neighbours against their number, for up to 10,000 anchors.

    Raises:
        BingoError: fewer than two training images have labels, the embeddings belong to another dataset or teacher,
            or they contain values that are not finite.
    """
    listing = read_listing(listing_path, "train")
    labelled = np.flatnonzero(listing.label >= 0)
    if len(labelled) < 2:
        raise BingoError(f"{listing_path}: purity needs at least two training images with labels; add labels")
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
    """Return purity and similarity of the exact nearest neighbours of anchors, excluding the anchors themselves.

    Args:
        features: (N, D) float32 of unit length.
        label: (N,), -1 if unknown.
        anchors: (A,) positions of images with a label; at least one other image must have a label.
        sizes: numbers K of neighbours in ascending order, each below N.
    """
    ranks = np.asarray(sizes) - 1
    shares, counted = np.zeros(len(ranks)), np.zeros(len(ranks), dtype=np.int64)
    similarity = np.zeros(len(ranks))
    with Progress("purity", len(anchors), "anchors") as progress:
        for rows, values, indices in nearest_neighbours(take_rows(features, anchors), features, sizes[-1] + 1):
            batch = anchors[rows]
            values, indices = without_self(values, indices, batch)
            classes = label[indices]
            known = np.cumsum(classes >= 0, axis=1)[:, ranks]  # (b, S)
            same = np.cumsum(classes == label[batch, None], axis=1)[:, ranks]
            shares += np.divide(same, known, out=np.zeros(same.shape), where=known > 0).sum(axis=0)
            counted += (known > 0).sum(axis=0)
            similarity += values[:, ranks].sum(axis=0, dtype=np.float64)
            progress.advance(len(batch))
    share = np.divide(shares, counted, out=np.full(len(ranks), np.nan), where=counted > 0)
    sizes_of_classes = np.bincount(label[label >= 0])
    chance = (sizes_of_classes[label[anchors]] - 1).mean() / (sizes_of_classes.sum() - 1)
    return Purity(share, similarity / len(anchors), float(chance))


@styled
def draw_similarity(listing_path: Path, bags_path: Path, outputs: Sequence[Path]) -> None:
    """Draw a histogram of the similarity between anchors and bag members, by class if there are labels.

    Raises:
        BingoError: the bags belong to another dataset, or are not of nearest neighbours.
    """
    listing = read_listing(listing_path, "train")
    bags = read_bags(bags_path)
    require_same(bags_path, "dataset", bags.attributes["dataset_digest"], listing.digest, listing_path)
    if bags.similarity is None:
        raise BingoError(f"{bags_path}: has no similarities; use bags with criterion knn")
    edges = np.histogram_bin_edges(bags.similarity, _BINS)
    groups = similarities_by_class(bags, listing.label)
    figure = new_figure(WIDTH * 2 / 3, 2.6)
    axes = figure.subplots()
    for number, (name, values) in enumerate(groups.items()):
        counts, _ = np.histogram(values, edges)
        style = line_style(number)
        text = f"{name}, {len(values) / len(bags.similarity):.1%}"
        axes.stairs(counts, edges, label=text, linestyle=style["linestyle"], edgecolor=style["color"], linewidth=1.4)
        axes.stairs(counts, edges, fill=True, color=style["color"], alpha=0.15)
    axes.set(xlabel="cosine similarity of member and anchor", ylabel="members", ylim=(0, None))
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.margins(x=0)
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    figure.legend(loc="outside lower center", ncols=3, handlelength=3)
    save(figure, outputs)


def similarities_by_class(bags: Bags, label: NDArray[np.int64]) -> dict[str, NDArray[np.float32]]:
    """Return the similarities of bag members by class: same as the anchor's, another, or unknown.

    Empty groups are omitted.

    Args:
        bags: bags of nearest neighbours, one per image.
        label: (N,), -1 if unknown.
    """
    assert bags.similarity is not None
    anchors = np.repeat(np.argsort(bags.bag_of), np.diff(bags.indptr))
    known = (label[anchors] >= 0) & (label[bags.members] >= 0)
    same = known & (label[anchors] == label[bags.members])
    groups = {"same class": same, "another class": known & ~same, "class unknown": ~known}
    return {name: bags.similarity[mask] for name, mask in groups.items() if mask.any()}
