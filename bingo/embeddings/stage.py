"""Entry point of the embeddings stage."""

import hashlib
import json
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bingo.artifacts import CHECKED, checked_dataset, provenance, read_hdf5, write_hdf5
from bingo.data.images import open_images
from bingo.data.listing import Listing, read_listing
from bingo.embeddings.embeddings import BATCH, embed
from bingo.engine.device import describe_device
from bingo.engine.distributed import exhaust, is_first
from bingo.errors import BingoError
from bingo.jobs import EmbeddingsJob
from bingo.models.backbone import require_size
from bingo.models.checkpoint import Teacher, load_teacher
from bingo.progress import Progress
from bingo.shards import Shard, damaged, part_rows, require_rows, shard_attributes, whole_shards

log = logging.getLogger(__name__)
_SHARD = "embeddings shard"


def make_embeddings(
    job: EmbeddingsJob,
    listing_path: Path,
    teacher_path: Path,
    output: Path,
    device: torch.device,
    workers: int,
    shards: Sequence[Path] = (),
) -> None:
    """Write the teacher's pooled features of all training images, streamed batch by batch.

    The file holds `embedding` (N, D) in float16, `index` and `label` (N,) int64.

    Args:
        job: the preprocessing.
        listing_path: the images.
        teacher_path: the network.
        output: HDF5 file to write.
        device: where the network runs.
        workers: loader processes.
        shards: files of `make_embeddings_shard` that hold the features; where there are none, they are computed.

    Raises:
        BingoError: an input is damaged, a feature does not fit float16, or shards are not all of these images.
    """
    listing = read_listing(listing_path, "train")
    teacher = load_teacher(teacher_path, device)
    origin = _origin(job, listing, teacher)
    count = len(listing)
    if shards:
        whole = whole_shards(shards, _SHARD, count, origin)
        facts, batches = _facts(whole), _gather(whole)
    else:
        facts = describe_device(device)
        batches = _compute(job, listing, teacher, teacher_path, device, workers, range(count))
    attributes = {
        "kind": "embeddings",
        "dataset_digest": listing.digest,
        "teacher_digest": teacher.digest,
        "layer": "pooled backbone output",
        "preprocessing": job.preprocessing.model_dump(),
        "provenance": provenance("embeddings", **(origin | facts)),
    }
    _write(output, attributes, batches, range(count), teacher.features, listing.label)


def make_embeddings_shard(
    job: EmbeddingsJob,
    listing_path: Path,
    teacher_path: Path,
    output: Path,
    device: torch.device,
    workers: int,
    part: str,
) -> None:
    """Write the features of one part of the images, `3-of-8` say, for `make_embeddings` to gather.

    Raises:
        BingoError: as `make_embeddings`, or there is no such part.
    """
    listing = read_listing(listing_path, "train")
    teacher = load_teacher(teacher_path, device)
    rows = part_rows(part, len(listing), BATCH)
    attributes = shard_attributes(_SHARD, rows, _origin(job, listing, teacher)) | {"device": describe_device(device)}
    batches = _compute(job, listing, teacher, teacher_path, device, workers, rows)
    _write(output, attributes, batches, rows, teacher.features, listing.label[rows.start : rows.stop])


def _origin(job: EmbeddingsJob, listing: Listing, teacher: Teacher) -> dict[str, Any]:
    return {
        "stage_version": job.version,
        "settings": job.model_dump(mode="json"),
        "inputs": {"dataset": listing.digest, "teacher": teacher.digest},
    }


def _compute(
    job: EmbeddingsJob,
    listing: Listing,
    teacher: Teacher,
    teacher_path: Path,
    device: torch.device,
    workers: int,
    rows: range,
) -> Iterator[NDArray[np.float16]]:
    """Yield the features of some images, batch by batch."""
    require_size(teacher.backbone, job.preprocessing.size, device)
    for batch in embed(teacher.backbone, open_images(listing), job.preprocessing, device, workers, "bilinear", rows):
        half = batch.half()  # (B, D)
        if not half.isfinite().all():
            raise BingoError(
                f"{teacher_path}: features overflow float16 or are not finite; train it with a lower learning rate"
            )
        yield half.numpy()


def _gather(shards: list[Shard]) -> Iterator[NDArray[np.float16]]:
    """Yield the features of shards, batch by batch."""
    for shard in shards:
        with read_hdf5(shard.path, _SHARD) as file:
            require_rows(shard, file["embedding"], np.float16)
            for start in range(0, len(shard.rows), BATCH):
                batch = file["embedding"][start : start + BATCH]
                if not np.isfinite(batch).all():
                    raise damaged(shard, "a value is not finite")
                yield batch


def _facts(shards: list[Shard]) -> dict[str, str]:
    """Say what computed shards, each device once."""
    found: dict[str, list[str]] = {}
    for shard in shards:
        with read_hdf5(shard.path, _SHARD) as file:
            for name, value in json.loads(file.attrs["device"]).items():
                found.setdefault(name, []).append(value)
    return {name: ", ".join(dict.fromkeys(values)) for name, values in found.items()}


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
    log.info("%s: %s embeddings of %s numbers, float16", output, f"{count:,}", f"{dim:,}")
