"""Figure of a network's features in two dimensions, by t-SNE (van der Maaten and Hinton 2008)."""

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
"""Maximum number of images; t-SNE of 1,200 images takes about 5 seconds."""
_CLASSES = 10
"""Maximum number of classes that colours and markers distinguish at a glance."""
_MIN_IMAGES = 4
_COMPONENTS = 50
_PERPLEXITY = 30


class Selection(NamedTuple):
    """Images to show."""

    rows: NDArray[np.int64]
    """Positions in the listing, in ascending order."""
    classes: NDArray[np.int64]
    """Classes shown, in ascending order."""
    left_out: int
    """Number of classes that are not shown."""


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
    """Draw the features of up to 1,200 random images of up to ten random classes.

    Args:
        model: name of the network.
        preprocessing: image preprocessing.
        listing_path: listing of the images.
        split: split of the listing, ``train`` or ``val``.
        model_path: backbone of a student, or a teacher.
        outputs: SVG or PNG files to write.
        device: device that computes the features.
        workers: number of loader processes.

    Raises:
        BingoError: an input is damaged, there are fewer than four images, or features are not finite.
    """
    listing = read_listing(listing_path, split)
    selection = select_images(listing.label)
    count = len(selection.rows)
    if count < _MIN_IMAGES:
        raise BingoError(f"{listing_path}: a map needs at least {_MIN_IMAGES} images, but there are {count}; add some")
    selected = listing.select(selection.rows)
    backbone, _ = read_backbone(model_path, device)
    require_size(backbone, preprocessing.size, device)
    parts = []
    with Progress(f"{model} features", count, "images") as progress:
        for batch in embed(backbone, open_images(selected), preprocessing, device, workers, "bilinear"):
            parts.append(batch.cpu())
            progress.advance(len(batch))
    features = torch.cat(parts).numpy()
    if not np.isfinite(features).all():
        raise BingoError(f"{model_path}: its features are not finite; train it with a lower learning rate")
    points = project_to_2d(features)

    figure = new_figure(WIDTH * 2 / 3, 3.5)
    axes = figure.subplots()
    groups = {listing.classes[number]: selected.label == number for number in selection.classes}
    if (selected.label < 0).any():
        groups["no label" if groups else ""] = selected.label < 0
    for number, (name, members) in enumerate(groups.items()):
        style = marker_style(number) if name != "no label" else {"color": "0.6", "marker": "."}
        # Rasterised, because many points make an SVG large.
        axes.plot(
            *points[members].T, markersize=3, markeredgewidth=0.6, linestyle="", label=name, rasterized=True, **style
        )
    axes.set(xticks=[], yticks=[])
    axes.set_aspect("equal", adjustable="datalim")
    axes.spines[["left", "bottom"]].set_visible(False)
    classes = f", {_CLASSES} of {_CLASSES + selection.left_out} classes" if selection.left_out else ""
    kind = "training" if split == "train" else "validation"
    axes.set_title(f"{model}: features of {count:,} {kind} images{classes}, t-SNE")
    if len(groups) > 1 or listing.labelled:
        figure.legend(loc="outside right center", markerscale=2)
    save(figure, outputs)


def select_images(label: NDArray[np.int64]) -> Selection:
    """Select up to 1,200 images at random with a fixed seed.

    With more than ten classes, only images of ten random classes are selected.

    Args:
        label: (N,), -1 if unknown.
    """
    classes = np.unique(label[label >= 0])
    sampled = np.sort(classes[permutation(0, Stream.SUBSET, 1, len(classes))[:_CLASSES]])
    left_out = len(classes) - len(sampled)
    rows = np.flatnonzero(np.isin(label, sampled)) if left_out else np.arange(len(label))
    rows = np.sort(rows[permutation(0, Stream.SUBSET, 0, len(rows))[:_IMAGES]])
    return Selection(rows, np.intersect1d(sampled, label[rows]), left_out)


def project_to_2d(features: NDArray[np.float32]) -> NDArray[np.float32]:
    """Project unit-length features to two dimensions by t-SNE: (N, 2).

    Features with more than 50 dimensions are first reduced by PCA. One thread makes the result reproducible.

    Args:
        features: (N, D) float32, N at least 4; normalised to unit length in place.
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
            return np.zeros((count, 2), dtype=np.float32)  # t-SNE of a collapsed network would divide by zero
        perplexity = min(_PERPLEXITY, (count - 1) / 3)
        return TSNE(init="pca", perplexity=perplexity, random_state=0).fit_transform(features)
