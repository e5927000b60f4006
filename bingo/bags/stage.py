"""Entry points of the bags stage: bags, and a picture of them, for which alone torch is imported."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bingo.artifacts import checked_dataset, provenance, read_hdf5, require_same, write_hdf5
from bingo.bags.bags import read_bags, write_bags
from bingo.bags.groups import label_bags, random_bags
from bingo.bags.kmeans import kmeans_bags
from bingo.bags.knn import find_neighbours, knn_bags
from bingo.config import KmeansBag, KnnBag, LabelBag
from bingo.data.listing import Listing, read_listing
from bingo.embeddings.file import Embeddings, open_embeddings
from bingo.errors import BingoError
from bingo.jobs import BagsJob
from bingo.neighbours import UNIT, Found
from bingo.shards import damaged, part_rows, require_rows, shard_attributes, whole_shards

if TYPE_CHECKING:
    from bingo.bags.sheet import Page

log = logging.getLogger(__name__)
_SHARD = "bags shard"


def make_bags(
    job: BagsJob,
    listing_path: Path,
    teacher_path: Path | None,
    embeddings_path: Path | None,
    output: Path,
    shards: Sequence[Path] = (),
) -> None:
    """Group the training images.

    Args:
        job: names the criterion.
        listing_path: the images.
        teacher_path: the teacher of the embeddings; not read for label and random bags.
        embeddings_path: the images' features; not read for label and random bags.
        output: HDF5 file to write.
        shards: files of `make_bags_shard` that hold the neighbours of knn bags; without any, they are searched.

    Raises:
        BingoError: the criterion needs embeddings or labels that are not there, the embeddings belong to another
            dataset or teacher, the bags' settings do not fit N, or shards are not all of these bags.
    """
    settings = job.bags
    listing = read_listing(listing_path, "train")
    inputs = {"dataset": listing.digest}
    if shards and not isinstance(settings, KnnBag):
        raise BingoError(f"--shard: bags of criterion {settings.criterion} are made in one job; leave it out")
    if isinstance(settings, KnnBag | KmeansBag):
        with _open_features(job, listing_path, listing, teacher_path, embeddings_path) as (embeddings, inputs):
            if isinstance(settings, KnnBag):
                found = _gather(shards, settings, len(listing), _origin(job, inputs)) if shards else None
                bags = knn_bags(embeddings.features, settings.size, settings.search, found)
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
        provenance=provenance("bags", **_origin(job, inputs)),
    )
    purity = bags.purity(listing.label)
    if purity is not None:
        bags.attributes["purity"] = purity
    log.info("%s bags of %s to %s images", f"{len(sizes):,}", f"{sizes.min():,}", f"{sizes.max():,}")
    log.info("purity: %s", "unknown, there are no labels" if purity is None else f"{purity:.4f}")
    if bags.similarity is not None:
        log.info("mean similarity of an image and its bag: %.4f", bags.similarity.mean())
    write_bags(output, bags)


def make_bags_shard(
    job: BagsJob, listing_path: Path, teacher_path: Path | None, embeddings_path: Path | None, output: Path, part: str
) -> None:
    """Write the neighbours of one part of the images, `3-of-8` say, for `make_bags` to gather.

    Raises:
        BingoError: as `make_bags`, the criterion is not knn, or there is no such part.
    """
    settings = job.bags
    if not isinstance(settings, KnnBag):
        raise BingoError(f"--part: bags of criterion {settings.criterion} are made in one job; leave it out")
    listing = read_listing(listing_path, "train")
    rows = part_rows(part, len(listing), UNIT)
    with _open_features(job, listing_path, listing, teacher_path, embeddings_path) as (embeddings, inputs):
        similarity, members = find_neighbours(embeddings.features, settings.size, settings.search, rows)
    with write_hdf5(output, shard_attributes(_SHARD, rows, _origin(job, inputs))) as file:
        checked_dataset(file, "similarity", similarity)
        checked_dataset(file, "members", members)


@contextmanager
def _open_features(
    job: BagsJob, listing_path: Path, listing: Listing, teacher_path: Path | None, embeddings_path: Path | None
) -> Iterator[tuple[Embeddings, dict[str, str]]]:
    """Open what a criterion compares; yield it and the digests of all inputs."""
    if teacher_path is None or embeddings_path is None:
        raise BingoError(f"bags: criterion {job.bags.criterion} needs --teacher and --embeddings")
    with open_embeddings(embeddings_path, listing_path, listing, teacher_path) as embeddings:
        teacher, digest = embeddings.teacher_digest, embeddings.digest
        yield embeddings, {"dataset": listing.digest, "teacher": teacher, "embeddings": digest}


def _origin(job: BagsJob, inputs: dict[str, str]) -> dict[str, Any]:
    return {"stage_version": job.version, "settings": job.model_dump(mode="json"), "inputs": inputs}


def _gather(paths: Sequence[Path], settings: KnnBag, count: int, origin: Mapping[str, Any]) -> Found:
    """Return similarity and members of all images (N, size) from shards."""
    similarity = np.empty((count, settings.size), dtype=np.float32)
    members = np.empty((count, settings.size), dtype=np.int64)
    for shard in whole_shards(paths, _SHARD, count, origin):
        with read_hdf5(shard.path, _SHARD) as file:
            for name, array in (("similarity", similarity), ("members", members)):
                require_rows(shard, file[name], array.dtype)
                rows = array[shard.rows.start : shard.rows.stop] = file[name][:]
                if not np.isfinite(rows).all() or (name == "members" and not ((rows >= 0) & (rows < count)).all()):
                    raise damaged(shard, f"{name} out of range")
    return similarity, members


def make_sheets(listing_path: Path, bags_path: Path, pages: "Mapping[Page, Path]") -> None:
    """Draw contact sheets of some anchors and their bags, each page to its file.

    Raises:
        BingoError: the bags belong to another dataset, or there is nothing to fill the page with.
    """
    from bingo.bags.sheet import choose_anchors, draw_sheet
    from bingo.data.images import open_images

    listing = read_listing(listing_path, "train")
    bags = read_bags(bags_path)
    require_same(bags_path, "dataset", bags.attributes["dataset_digest"], listing.digest, listing_path)
    images = open_images(listing)
    for page, output in pages.items():
        draw_sheet(bags, images, choose_anchors(bags, listing.label, page), output)
