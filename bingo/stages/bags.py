"""The bags stage: build bags of similar images."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from bingo.artifacts.embeddings import Embeddings, open_embeddings
from bingo.artifacts.hdf5 import checked_dataset, read_hdf5, write_hdf5
from bingo.artifacts.provenance import provenance
from bingo.artifacts.shards import damaged_shard, part_rows, require_complete_shards, require_rows, shard_attributes
from bingo.bags.bags import write_bags
from bingo.bags.groups import label_bags, random_bags
from bingo.bags.kmeans import kmeans_bags
from bingo.bags.knn import find_neighbours, knn_bags
from bingo.bags.neighbours import QUERY_BLOCK, Neighbours
from bingo.data.listing import Listing, read_listing
from bingo.errors import BingoError
from bingo.study.bags import KmeansBag, KnnBag, LabelBag
from bingo.study.jobs import BagsJob

log = logging.getLogger(__name__)
_SHARD = "bags shard"


def run(job: BagsJob, threads: int) -> None:  # noqa: ARG001  faiss reads the number of threads from the environment
    """Build the bags of the training images, or write the neighbours of one part of them (`3-of-8`) as a shard.

    Raises:
        BingoError: embeddings or labels are missing, the embeddings belong to another dataset or teacher, the dataset
            is too small for the settings, the part does not exist, or the shards are incomplete or of other bags.
    """
    settings = job.bags
    listing = read_listing(job.listing, "train")
    inputs = {"dataset": listing.digest}
    if (job.shards or job.part) and not isinstance(settings, KnnBag):
        option = "--shards" if job.shards else "--part"
        raise BingoError(f"{option}: bags of criterion {settings.criterion} are made in one job; leave it out")
    if isinstance(settings, KnnBag | KmeansBag):
        with _open_features(job, listing) as (embeddings, inputs):
            if isinstance(settings, KnnBag) and job.part is not None:
                _write_shard(job, settings, embeddings, inputs, job.part)
                return
            if isinstance(settings, KnnBag):
                neighbours = _gather(job.shards, settings, len(listing), _origin(job, inputs)) if job.shards else None
                bags = knn_bags(embeddings.features, settings.size, settings.search, neighbours)
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
    log.info("purity: %s", "unknown (no labels)" if purity is None else f"{purity:.4f}")
    if bags.similarity is not None:
        log.info("mean similarity of anchors and bag members: %.4f", bags.similarity.mean())
    write_bags(job.output, bags)


def _write_shard(job: BagsJob, settings: KnnBag, embeddings: Embeddings, inputs: dict[str, str], part: str) -> None:
    rows = part_rows(part, len(embeddings.features), QUERY_BLOCK)
    similarity, members = find_neighbours(embeddings.features, settings.size, settings.search, rows)
    with write_hdf5(job.output, shard_attributes(_SHARD, rows, _origin(job, inputs))) as file:
        checked_dataset(file, "similarity", similarity)
        checked_dataset(file, "members", members)


@contextmanager
def _open_features(job: BagsJob, listing: Listing) -> Iterator[tuple[Embeddings, dict[str, str]]]:
    """Yield the embeddings and the digests of all inputs."""
    if job.teacher is None or job.embeddings is None:
        raise BingoError(f"bags: criterion {job.bags.criterion} needs --teacher and --embeddings; pass both")
    with open_embeddings(job.embeddings, job.listing, listing.digest, len(listing), job.teacher) as embeddings:
        teacher, digest = embeddings.teacher_digest, embeddings.digest
        yield embeddings, {"dataset": listing.digest, "teacher": teacher, "embeddings": digest}


def _origin(job: BagsJob, inputs: dict[str, str]) -> dict[str, Any]:
    return {"stage_version": job.STAGE_VERSION, "settings": job.settings, "inputs": inputs}


def _gather(paths: Sequence[Path], settings: KnnBag, count: int, origin: Mapping[str, Any]) -> Neighbours:
    """Return similarity and members of all images, (N, size) each, from the shards."""
    similarity = np.empty((count, settings.size), dtype=np.float32)
    members = np.empty((count, settings.size), dtype=np.int64)
    for shard in require_complete_shards(paths, _SHARD, count, origin):
        with read_hdf5(shard.path, _SHARD) as file:
            for name, array in (("similarity", similarity), ("members", members)):
                require_rows(shard, file[name], array.dtype)
                rows = array[shard.rows.start : shard.rows.stop] = file[name][:]
                if not np.isfinite(rows).all() or (name == "members" and not ((rows >= 0) & (rows < count)).all()):
                    raise damaged_shard(shard, f"{name} out of range")
    return similarity, members
