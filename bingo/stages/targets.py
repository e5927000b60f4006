"""The targets stage: compute a teacher's outputs for augmented views of every image, once for all students."""

import hashlib
import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from bingo.artifacts.hdf5 import CHECKED, write_hdf5
from bingo.artifacts.provenance import provenance
from bingo.data.images import Images, open_images, render_views
from bingo.data.listing import read_listing
from bingo.errors import BingoError
from bingo.models.backbone import require_size
from bingo.models.batch_norm_folding import fold_batch_norm
from bingo.models.checkpoint import TeacherNetwork, load_teacher
from bingo.progress import Progress
from bingo.study.jobs import TargetsJob
from bingo.training.device import autocast, describe_device, resolve_precision
from bingo.training.distributed import compute_shared, exhaust, is_first
from bingo.training.loader import load
from bingo.training.teacher import describe_targets, network_of
from bingo.views.parameters import draw_for_teacher
from bingo.views.recipes import RECIPES
from bingo.views.rendering import ViewPixels, pin_views, render

log = logging.getLogger(__name__)
_BATCH = 128
_VIEWS_PER_READ = 8
"""Views rendered per read of an image: more views save reading and decoding, but take more memory."""


@dataclass(frozen=True)
class _ViewBatch:
    """Several views of a batch of images."""

    rows: slice
    views: dict[int, ViewPixels]

    def pin_memory(self) -> "_ViewBatch":
        return replace(self, views=pin_views(self.views))


class _ViewsInOrder:
    """Batches of images in the listing's order, with up to `_VIEWS_PER_READ` views at a time."""

    def __init__(self, images: Images, job: TargetsJob) -> None:
        self.images, self.job = images, job
        self.groups = -(-job.views // _VIEWS_PER_READ)

    def __len__(self) -> int:
        return -(-len(self.images.listing) // _BATCH) * self.groups

    def __getitem__(self, index: int) -> _ViewBatch:
        batch, group = divmod(index, self.groups)
        rows = np.arange(batch * _BATCH, min((batch + 1) * _BATCH, len(self.images.listing)))  # (B,)
        views = range(group * _VIEWS_PER_READ, min((group + 1) * _VIEWS_PER_READ, self.job.views))
        recipe, size = RECIPES[self.job.recipe], self.images.listing.size[rows]
        parameters = {view: draw_for_teacher(recipe, rows, view, self.job.number, size) for view in views}
        pixels = render_views(self.images, rows, parameters, self.job.preprocessing, recipe)
        return _ViewBatch(slice(int(rows[0]), int(rows[-1]) + 1), pixels)


def run(job: TargetsJob, device: torch.device, workers: int) -> None:
    """Write a teacher's outputs for V views of all training images, batch by batch.

    The file contains `target` (N, V, D) float16, unit vectors.

    Raises:
        BingoError: an input is damaged, or an output is not finite.
    """
    listing = read_listing(job.listing, "train")
    teacher = load_teacher(job.teacher, device)
    images, count = open_images(listing), len(listing)
    width = teacher.features if job.layer == "features" else teacher.dim
    inputs = {"dataset": listing.digest, "teacher": teacher.digest}
    attributes = {
        "kind": "targets",
        "dataset_digest": listing.digest,
        "teacher_digest": teacher.digest,
        "drawn": describe_targets(job, device),
        "provenance": provenance("targets", job.STAGE_VERSION, job.settings, inputs, **describe_device(device)),
    }
    outputs = _outputs(job, teacher, images, device, workers)
    if not is_first():
        exhaust(outputs)
        return
    digest = hashlib.sha256()
    title = f"views for {job.teacher.stem}"
    with write_hdf5(job.output, attributes) as file, Progress(title, count * job.views, "views") as progress:
        chunks = (min(count, _BATCH), 1, width)
        target = file.create_dataset("target", (count, job.views, width), "float16", chunks=chunks, **CHECKED)
        for rows, view, units in outputs:
            if not units.isfinite().all():
                raise BingoError(f"{job.teacher}: its outputs are not finite; train it with a lower learning rate")
            half = units.half().numpy()  # (B, D)
            target[rows, view] = half
            digest.update(half.tobytes())
            progress.advance(len(half))
        file.attrs["digest"] = digest.hexdigest()
    log.info(
        "%s: %s outputs of width %s for each of %s images, float16", job.output, job.views, f"{width:,}", f"{count:,}"
    )


@torch.inference_mode()
def _outputs(
    job: TargetsJob, teacher: TeacherNetwork, images: Images, device: torch.device, workers: int
) -> Iterator[tuple[slice, int, Tensor]]:
    """Yield rows, view number, and outputs: float32 unit vectors (B, D) on the CPU.

    Several processes share the batches. Rank 0 gets all outputs; the others get none.
    """
    dtype = resolve_precision(job.precision, device)
    network = fold_batch_norm(network_of(teacher, job.layer))
    require_size(teacher.backbone, job.preprocessing.size, device)
    views = _ViewsInOrder(images, job)

    def compute(indices: Iterable[int]) -> Iterator[list[tuple[slice, int, Tensor]]]:
        for batch in load(views, indices, workers):
            results = []
            for view, images in render(batch.views, RECIPES[job.recipe], job.preprocessing, device):
                with autocast(dtype, device):
                    outputs = network(images)  # (B, D)
                results.append((batch.rows, view, F.normalize(outputs.float(), dim=1).cpu()))
            yield results

    for results in compute_shared(range(len(views)), compute):
        yield from results
