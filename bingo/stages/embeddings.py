"""The embeddings stage: compute a teacher's features of every training image, in the listing's order."""

import hashlib
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bingo.artifacts.hdf5 import CHECKED, checked_dataset, read_hdf5, write_hdf5
from bingo.artifacts.provenance import provenance
from bingo.artifacts.shards import (
    Shard,
    damaged_shard,
    part_rows,
    require_complete_shards,
    require_rows,
    shard_attributes,
)
from bingo.data.images import open_images
from bingo.data.listing import Listing, read_listing
from bingo.errors import BingoError
from bingo.models.backbone import require_size
from bingo.models.checkpoint import TeacherNetwork, load_teacher
from bingo.progress import Progress
from bingo.study.jobs import EmbeddingsJob
from bingo.training.device import describe_device
from bingo.training.distributed import exhaust, is_first
from bingo.training.embed import EMBED_BATCH, embed

log = logging.getLogger(__name__)
_SHARD = "embeddings shard"


def run(job: EmbeddingsJob, device: torch.device, workers: int) -> None:
    """Write the teacher's pooled features of all training images or of one part of them, batch by batch.

    The file contains `embedding` (N, D) float16, `index` (N,) int64 and `label` (N,) int64.

    Raises:
        BingoError: an input is damaged, a feature overflows float16, the part does not exist, or the shards are
            incomplete or of other images.
    """
    listing = read_listing(job.listing, "train")
    teacher = load_teacher(job.teacher, device)
    origin = _origin(job, listing, teacher)
    rows = range(len(listing))
    if job.shards:
        shards = require_complete_shards(job.shards, _SHARD, len(listing), origin)
        facts, batches = _devices(shards), _gather(shards)
    else:
        rows = rows if job.part is None else part_rows(job.part, len(listing), EMBED_BATCH)
        facts, batches = describe_device(device), _compute(job, listing, teacher, device, workers, rows)
    attributes = {
        "kind": "embeddings",
        "dataset_digest": listing.digest,
        "teacher_digest": teacher.digest,
        "layer": "pooled backbone output",
        "preprocessing": job.preprocessing.model_dump(),
        "provenance": provenance("embeddings", **(origin | facts)),
    }
    if job.part is not None:
        attributes = shard_attributes(_SHARD, rows, origin) | {"device": facts}
    _write(job.output, attributes, batches, rows, teacher.features, listing.label[rows.start : rows.stop])


def _origin(job: EmbeddingsJob, listing: Listing, teacher: TeacherNetwork) -> dict[str, Any]:
    return {
        "stage_version": job.STAGE_VERSION,
        "settings": job.settings,
        "inputs": {"dataset": listing.digest, "teacher": teacher.digest},
    }


def _compute(
    job: EmbeddingsJob,
    listing: Listing,
    teacher: TeacherNetwork,
    device: torch.device,
    workers: int,
    rows: range,
) -> Iterator[NDArray[np.float16]]:
    """Yield the features of the images at ``rows``, batch by batch: (B, D)."""
    require_size(teacher.backbone, job.preprocessing.size, device)
    for batch in embed(teacher.backbone, open_images(listing), job.preprocessing, device, workers, "bilinear", rows):
        half = batch.half()  # (B, D)
        if not half.isfinite().all():
            raise BingoError(
                f"{job.teacher}: features overflow float16 or are not finite; train it with a lower learning rate"
            )
        yield half.numpy()


def _gather(shards: list[Shard]) -> Iterator[NDArray[np.float16]]:
    """Yield the features from the shards, batch by batch: (B, D)."""
    for shard in shards:
        with read_hdf5(shard.path, _SHARD) as file:
            require_rows(shard, file["embedding"], np.float16)
            for start in range(0, len(shard.rows), EMBED_BATCH):
                batch = file["embedding"][start : start + EMBED_BATCH]
                if not np.isfinite(batch).all():
                    raise damaged_shard(shard, "a value is not finite")
                yield batch


def _devices(shards: list[Shard]) -> dict[str, str]:
    """Return the devices that computed the shards, without duplicates."""
    devices: dict[str, list[str]] = {}
    for shard in shards:
        with read_hdf5(shard.path, _SHARD) as file:
            for name, value in json.loads(file.attrs["device"]).items():
                devices.setdefault(name, []).append(value)
    return {name: ", ".join(dict.fromkeys(values)) for name, values in devices.items()}


def _write(
    output: Path,
    attributes: dict[str, Any],
    batches: Iterator[NDArray[np.float16]],
    rows: range,
    dim: int,
    label: NDArray[np.int64],
) -> None:
    if not is_first():
        exhaust(batches)
        return
    count = len(rows)
    digest = hashlib.sha256()
    with write_hdf5(output, attributes) as file, Progress("embeddings", count, "images") as progress:
        options = {"chunks": (min(count, 1024), dim), **CHECKED} if count else {}
        embedding = file.create_dataset("embedding", (count, dim), "float16", **options)
        done = 0
        for batch in batches:
            digest.update(batch.tobytes())
            embedding[done : done + len(batch)] = batch
            done += len(batch)
            progress.advance(len(batch))
        checked_dataset(file, "index", np.asarray(rows, dtype=np.int64))
        checked_dataset(file, "label", label)
        file.attrs["digest"] = digest.hexdigest()
    log.info("%s: %s embeddings of width %s, float16", output, f"{count:,}", f"{dim:,}")
