"""Entry point of the targets stage."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from bingo.artifacts import provenance, write_hdf5
from bingo.data.images import Images, open_images
from bingo.data.listing import read_listing
from bingo.data.loader import ViewPixels, render, show, unchanged
from bingo.engine.device import autocast, resolve_precision
from bingo.errors import BingoError
from bingo.jobs import TargetsJob
from bingo.models.checkpoint import Teacher, load_teacher
from bingo.progress import Progress
from bingo.sections import NetworkInput, Precision, RecipeName
from bingo.targets.outputs import dataset_name, network_of
from bingo.views.parameters import draw_for_teacher
from bingo.views.recipes import RECIPES

_BATCH = 256
_VIEWS_AT_ONCE = 8
"""Views made of an image each time it is read: reading is dear, and so is the memory of many views."""


def describe_views(recipe: RecipeName, preprocessing: NetworkInput, precision: Precision, device: torch.device) -> str:
    """Return as canonical JSON on what stored outputs depend, beside teacher and images."""
    dtype = str(resolve_precision(precision, device)).removeprefix("torch.")
    values = {"recipe": recipe, "precision": dtype, **preprocessing.model_dump(include={"size", "mean", "std"})}
    return json.dumps(values, sort_keys=True)


@dataclass(frozen=True)
class _Shown:
    """Some views of a batch of images."""

    rows: slice
    views: dict[tuple[int, int], ViewPixels]
    """By view, and number among the teacher views of an epoch."""


class _ViewsInOrder(Dataset[_Shown | BingoError]):
    """Batches of images in the listing's order, in some of their views at a time."""

    def __init__(self, images: Images, job: TargetsJob) -> None:
        self.images, self.job = images, job
        self.numbers = sorted({output.number for output in job.outputs})
        self.groups = -(-job.views // _VIEWS_AT_ONCE)

    def __len__(self) -> int:
        return -(-len(self.images.listing) // _BATCH) * self.groups

    def __getitem__(self, position: int) -> _Shown | BingoError:
        batch, group = divmod(position, self.groups)
        rows = np.arange(batch * _BATCH, min((batch + 1) * _BATCH, len(self.images.listing)))
        views = range(group * _VIEWS_AT_ONCE, min((group + 1) * _VIEWS_AT_ONCE, self.job.views))
        recipe, size = RECIPES[self.job.recipe], self.images.listing.size[rows]
        parameters = {
            (view, number): draw_for_teacher(recipe, rows, view, number, size)
            for view in views
            for number in self.numbers
        }
        try:
            shown = show(self.images, rows, parameters, self.job.preprocessing.size)
        except BingoError as error:
            return error
        return _Shown(slice(int(rows[0]), int(rows[-1]) + 1), shown)


def make_targets(
    job: TargetsJob, listing_path: Path, teacher_path: Path, output_path: Path, device: torch.device, workers: int
) -> None:
    """Write a teacher's outputs for V views of all training images, as unit vectors, streamed batch by batch.

    The file holds a dataset (N, V, D) in float16 for each layer and view number asked for.

    Raises:
        BingoError: an input is damaged, or an output is not finite.
    """
    listing = read_listing(listing_path, "train")
    teacher = load_teacher(teacher_path, device)
    count = len(listing)
    drawn = describe_views(job.recipe, job.preprocessing, job.precision, device)
    inputs = {"dataset": listing.digest, "teacher": teacher.digest}
    attributes = {
        "kind": "targets",
        "dataset_digest": listing.digest,
        "teacher_digest": teacher.digest,
        "drawn": drawn,
        "provenance": provenance("targets", job.version, job.model_dump(mode="json"), inputs, device=device.type),
    }
    digest = hashlib.sha256()
    images = open_images(listing)
    title, total = f"views for {teacher_path.stem}", count * job.views * len({output.number for output in job.outputs})
    with write_hdf5(output_path, attributes) as file, Progress(title, total, "views") as progress:
        for output in job.outputs:
            width = teacher.features if output.layer == "features" else teacher.dim
            file.create_dataset(
                dataset_name(output.layer, output.number),
                (count, job.views, width),
                "float16",
                chunks=(min(count, _BATCH), 1, width),
                fletcher32=True,
            )
        for rows, view, outputs in _outputs(job, teacher, images, device, workers):
            for name, units in outputs.items():
                if not units.isfinite().all():
                    raise BingoError(f"{teacher_path}: its outputs are not finite; train it with a lower learning rate")
                half = units.half().cpu().numpy()
                file[name][rows, view] = half
                digest.update(half.tobytes())
            progress.advance(rows.stop - rows.start)
        file.attrs["digest"] = digest.hexdigest()


@torch.inference_mode()
def _outputs(
    job: TargetsJob, teacher: Teacher, images: Images, device: torch.device, workers: int
) -> Iterator[tuple[slice, int, dict[str, Tensor]]]:
    """Yield rows, view and, by dataset, the outputs for them: float32 unit vectors (B, D)."""
    dtype = resolve_precision(job.precision, device)
    loader = DataLoader(_ViewsInOrder(images, job), batch_size=None, num_workers=workers, collate_fn=unchanged)
    for shown in loader:
        if isinstance(shown, BingoError):
            raise shown
        for (view, number), pixels in shown.views.items():
            rendered = render(pixels, RECIPES[job.recipe], job.preprocessing, device)
            units = {}
            for output in (output for output in job.outputs if output.number == number):
                with autocast(dtype, device):
                    values = network_of(teacher, output.layer)(rendered)
                units[dataset_name(output.layer, number)] = F.normalize(values.float(), dim=1)
            yield shown.rows, view, units
