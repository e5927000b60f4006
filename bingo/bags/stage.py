"""Entry points of the bags stage: bags, and a picture of them."""

import logging
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from bingo.artifacts import provenance, require_same
from bingo.bags.bags import read_bags, write_bags
from bingo.bags.groups import label_bags, random_bags
from bingo.bags.kmeans import kmeans_bags
from bingo.bags.knn import knn_bags
from bingo.bags.sheet import Page, choose_anchors, draw_sheet
from bingo.config import KmeansBag, KnnBag, LabelBag
from bingo.data.images import open_images
from bingo.data.listing import read_listing
from bingo.embeddings.embeddings import read_embeddings
from bingo.errors import BingoError
from bingo.jobs import BagsJob

log = logging.getLogger(__name__)


def make_bags(
    job: BagsJob, listing_path: Path, teacher_path: Path | None, embeddings_path: Path | None, output: Path
) -> None:
    """Group the training images.

    Args:
        job: names the criterion.
        listing_path: the images.
        teacher_path: the teacher of the embeddings; not read for label and random bags.
        embeddings_path: the images' features; not read for label and random bags.
        output: HDF5 file to write.

    Raises:
        BingoError: the criterion needs embeddings or labels that are not there, the embeddings belong to another
            dataset or teacher, or the bags' settings do not fit N.
    """
    settings = job.bags
    listing = read_listing(listing_path, "train")
    inputs = {"dataset": listing.digest}
    if isinstance(settings, KnnBag | KmeansBag):
        if teacher_path is None or embeddings_path is None:
            raise BingoError(f"bags: criterion {settings.criterion} needs --teacher and --embeddings")
        embeddings = read_embeddings(embeddings_path, listing_path, listing, teacher_path)
        inputs |= {"teacher": embeddings.teacher_digest, "embeddings": embeddings.digest}
        if isinstance(settings, KnnBag):
            bags = knn_bags(embeddings.features, settings.size)
        else:
            bags = kmeans_bags(embeddings.features, settings.clusters, settings.iterations, settings.seed)
        bags.attributes["teacher_digest"] = embeddings.teacher_digest
    elif isinstance(settings, LabelBag):
        bags = label_bags(listing.label)
    else:
        bags = random_bags(len(listing), settings.size, settings.seed)
    sizes = np.diff(bags.indptr)
    bags.attributes.update(
        dataset_digest=listing.digest,
        criterion=settings.criterion,
        bags=len(sizes),
        smallest=int(sizes.min()),
        largest=int(sizes.max()),
        median=float(np.median(sizes)),
        provenance=provenance("bags", job.version, job.model_dump(mode="json"), inputs),
    )
    purity = bags.purity(listing.label)
    if purity is not None:
        bags.attributes["purity"] = purity
    log.info("%s bags of %s to %s images", f"{len(sizes):,}", f"{sizes.min():,}", f"{sizes.max():,}")
    log.info("purity: %s", "unknown, there are no labels" if purity is None else f"{purity:.4f}")
    write_bags(output, bags)


def make_sheets(listing_path: Path, bags_path: Path, pages: Mapping[Page, Path]) -> None:
    """Draw contact sheets of some anchors and their bags, each page to its file.

    Raises:
        BingoError: the bags belong to another dataset, or there is nothing to fill the page with.
    """
    listing = read_listing(listing_path, "train")
    bags = read_bags(bags_path)
    require_same(bags_path, "dataset", bags.attributes["dataset_digest"], listing.digest, listing_path)
    images = open_images(listing)
    for page, output in pages.items():
        draw_sheet(bags, images, choose_anchors(bags, listing.label, page), output)
