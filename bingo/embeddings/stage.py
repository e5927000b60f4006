"""Entry point of the embeddings stage."""

import hashlib
from pathlib import Path

import torch

from bingo.artifacts import CHECKED, checked_dataset, provenance, write_hdf5
from bingo.data.images import open_images
from bingo.data.listing import read_listing
from bingo.embeddings.embeddings import embed
from bingo.engine.device import describe_device
from bingo.engine.distributed import exhaust, is_first
from bingo.errors import BingoError
from bingo.jobs import EmbeddingsJob
from bingo.models.backbone import require_size
from bingo.models.checkpoint import load_teacher
from bingo.progress import Progress


def make_embeddings(
    job: EmbeddingsJob,
    listing_path: Path,
    teacher_path: Path,
    output: Path,
    device: torch.device,
    workers: int,
) -> None:
    """Write the teacher's pooled features of all training images, streamed batch by batch.

    The file holds `embedding` (N, D) in float16, `index` and `label` (N,) int64.

    Raises:
        BingoError: an input is damaged, or a feature does not fit float16.
    """
    listing = read_listing(listing_path, "train")
    teacher = load_teacher(teacher_path, device)
    count, dim = len(listing), teacher.features
    require_size(teacher.backbone, job.preprocessing.size, device)
    inputs = {"dataset": listing.digest, "teacher": teacher.digest}
    attributes = {
        "kind": "embeddings",
        "dataset_digest": listing.digest,
        "teacher_digest": teacher.digest,
        "layer": "pooled backbone output",
        "preprocessing": job.preprocessing.model_dump(),
        "provenance": provenance(
            "embeddings", job.version, job.model_dump(mode="json"), inputs, **describe_device(device)
        ),
    }
    batches = embed(teacher.backbone, open_images(listing), job.preprocessing, device, workers, "bilinear")
    if not is_first():
        exhaust(batches)
        return
    digest = hashlib.sha256()
    with write_hdf5(output, attributes) as file, Progress("embeddings", count, "images") as progress:
        embedding = file.create_dataset("embedding", (count, dim), "float16", chunks=(min(count, 1024), dim), **CHECKED)
        done = 0
        for batch in batches:
            half = batch.half()  # (B, D)
            if not half.isfinite().all():
                raise BingoError(
                    f"{teacher_path}: features overflow float16 or are not finite; train it with a lower learning rate"
                )
            digest.update(half.numpy().tobytes())
            embedding[done : done + len(half)] = half
            done += len(half)
            progress.advance(len(half))
        checked_dataset(file, "index", torch.arange(count).numpy())
        checked_dataset(file, "label", listing.label)
        file.attrs["digest"] = digest.hexdigest()
