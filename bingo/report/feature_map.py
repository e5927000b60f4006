"""A network's features in the plane, by t-SNE (van der Maaten and Hinton 2008)."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from bingo.bags.neighbours import normalise_rows
from bingo.data.images import open_images
from bingo.data.listing import read_listing
from bingo.errors import BingoError
from bingo.models.backbone import require_size
from bingo.models.checkpoint import read_backbone
from bingo.philox import Stream, permutation
from bingo.progress import Progress
from bingo.report.style import WIDTH, marker_style, new_figure, save, styled
from bingo.study.sections import Preprocessing
from bingo.training.embed import embed

_IMAGES = 1200
"""t-SNE of so many takes some 5 seconds."""
_CLASSES = 10
"""As many as colours and markers tell apart at a glance."""
_MIN_IMAGES = 4
_COMPONENTS = 50
_PERPLEXITY = 30


class Selection(NamedTuple):
    """Images to show."""

    rows: NDArray[np.int64]
    """Positions in the listing, rising."""
    classes: NDArray[np.int64]
    """Classes shown, rising."""
    left_out: int
    """Classes that are not shown."""


@styled
def draw_map(
    model: str,
    preprocessing: Preprocessing,
    listing_path: Path,
    split: str,
    model_path: Path,
    outputs: Sequence[Path],
    device: torch.device,
    workers: int,
) -> None:
    """Draw the features of at most 1,200 images of at most ten classes, each drawn at random once.

    Args:
        model: the network's name.
        preprocessing: how images are prepared.
        listing_path: the images.
        split: ``train`` or ``val``, whichever the listing lists.
        model_path: a student's backbone, or a teacher.
        outputs: SVG or PNG files to write.
        device: where to compute features.
        workers: loader processes.

    Raises:
        BingoError: an input is damaged, there are fewer than four images, or features are not finite.
    """
    listing = read_listing(listing_path, split)
    chosen = select_images(listing.label)
    if len(chosen.rows) < _MIN_IMAGES:
        raise BingoError(f"{listing_path}: a map needs at least {_MIN_IMAGES} images, but there are {len(chosen.rows)}")
    shown = listing.select(chosen.rows)
    backbone, _ = read_backbone(model_path, device)
    require_size(backbone, preprocessing.size, device)
    parts = []
    with Progress(f"{model} features", len(shown), "images") as progress:
        for batch in embed(backbone, open_images(shown), preprocessing, device, workers, "bilinear"):
            parts.append(batch.cpu())
            progress.advance(len(batch))
    features = torch.cat(parts).numpy()
    if not np.isfinite(features).all():
        raise BingoError(f"{model_path}: its features are not finite; train it with a lower learning rate")
    points = project_to_2d(features)

    figure = new_figure(WIDTH * 2 / 3, 3.5)
    axes = figure.subplots()
    groups = {listing.classes[number]: shown.label == number for number in chosen.classes}
    if (shown.label < 0).any():
        groups["no label" if groups else ""] = shown.label < 0
    for number, (name, members) in enumerate(groups.items()):
        look = marker_style(number) if name != "no label" else {"color": "0.6", "marker": "."}
        # Pixels, because many points make an SVG large.
        axes.plot(
            *points[members].T, markersize=3, markeredgewidth=0.6, linestyle="", label=name, rasterized=True, **look
        )
    axes.set(xticks=[], yticks=[])
    axes.set_aspect("equal", adjustable="datalim")
    axes.spines[["left", "bottom"]].set_visible(False)
    some = f", {_CLASSES} of {_CLASSES + chosen.left_out} classes" if chosen.left_out else ""
    kind = "training" if split == "train" else "validation"
    axes.set_title(f"{model}: features of {len(shown):,} {kind} images{some}, t-SNE")
    if len(groups) > 1 or listing.labelled:
        figure.legend(loc="outside right center", markerscale=2)
    save(figure, outputs)


def select_images(label: NDArray[np.int64]) -> Selection:
    """Choose images: all if they are few of few classes, else some drawn at random, the same ones every time.

    Where there are more than ten classes, all images are of ten of them, which are drawn too.

    Args:
        label: (N,), -1 where unknown.
    """
    classes = np.unique(label[label >= 0])
    drawn = np.sort(classes[permutation(0, Stream.SUBSET, 1, len(classes))[:_CLASSES]])
    left_out = len(classes) - len(drawn)
    rows = np.flatnonzero(np.isin(label, drawn)) if left_out else np.arange(len(label))
    rows = np.sort(rows[permutation(0, Stream.SUBSET, 0, len(rows))[:_IMAGES]])
    return Selection(rows, np.intersect1d(drawn, label[rows]), left_out)


def project_to_2d(features: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return (N, 2) points by t-SNE, near each other where features are similar by cosine.

    Features beyond 50 dimensions go through PCA first. On one thread, so that equal features give equal points.

    Args:
        features: (N, D) float32, N at least 4; scaled to unit length in place.
    """
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    normalise_rows(features)
    count, width = features.shape
    with threadpool_limits(1):
        if width > _COMPONENTS:
            features = PCA(min(_COMPONENTS, count), random_state=0).fit_transform(features)
        if np.ptp(features, axis=0).max() == 0:
            return np.zeros((count, 2), dtype=np.float32)  # a collapsed network: t-SNE would divide by zero
        perplexity = min(_PERPLEXITY, (count - 1) / 3)
        return TSNE(init="pca", perplexity=perplexity, random_state=0).fit_transform(features)
