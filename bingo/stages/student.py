"""The student stage: train a small backbone, with or without a teacher."""

from pathlib import Path
from typing import Any

import torch

from bingo.artifacts.provenance import require_same
from bingo.artifacts.tensors import write_tensors
from bingo.bags.bags import Bags, read_bags
from bingo.data.listing import Listing, read_listing
from bingo.errors import BingoError
from bingo.models.backbone import require_size
from bingo.models.batch_norm import synchronise_batch_norm
from bingo.models.checkpoint import load_teacher
from bingo.study.jobs import StudentJob, TargetsJob
from bingo.study.method import Distillation
from bingo.training.distributed import processes
from bingo.training.log_csv import write_log
from bingo.training.model import TrainingModel
from bingo.training.state import LogRow
from bingo.training.step import TeacherOutputs
from bingo.training.teacher import OnlineTeacher, StoredTeacher, describe_targets, require_targets
from bingo.training.train_method import Inputs, train_method


def run(job: StudentJob, device: torch.device, workers: int) -> None:
    """Train a student and write `backbone.safetensors`, `head.safetensors` and `log.csv` into a folder.

    Raises:
        BingoError: an input does not exist, is damaged or belongs to another dataset or teacher, or the loss is not
            finite.
    """
    student = job.student

    def write(model: TrainingModel, rows: list[LogRow], provenance: dict[str, Any]) -> None:
        write_log(job.output / "log.csv", rows)
        metadata = {"backbone": student.backbone.model_dump(), "method": student.method, "provenance": provenance}
        write_tensors(job.output / "head.safetensors", model.head.state_dict(), metadata)
        write_tensors(job.output / "backbone.safetensors", model.backbone.state_dict(), metadata)

    inputs = _open_inputs(job, device)
    state_path, title = job.output / "state.pt", f"student {job.name} seed {job.seed}"
    train_method(student, job, job.seed, inputs, state_path, title, device, workers, write)


def _open_inputs(job: StudentJob, device: torch.device) -> Inputs:
    """Open the inputs of the method, and check that they belong together."""
    method, listing = job.student, read_listing(job.listing, "train")
    digests = {"dataset": listing.digest}
    teacher: TeacherOutputs | None = None
    if isinstance(method, Distillation):
        if method.teacher_views == "online":
            teacher = _open_teacher(job, method, digests, device)
        else:
            teacher = _open_targets(job, method, listing, digests, device)
    bags = _open_bags(job, digests) if method.draws_positives() else None
    return Inputs(listing, digests, teacher, bags)


def _open_teacher(
    job: StudentJob, method: Distillation, digests: dict[str, str], device: torch.device
) -> OnlineTeacher:
    """Load the teacher's network, and add its digest to ``digests``."""
    if job.teacher is None:
        raise BingoError(f"student {job.name}: method {method.method} with an online teacher needs --teacher; pass it")
    if job.targets:
        raise BingoError(
            f"student {job.name}: --targets needs stored teacher views, but teacher_views is online; leave it out"
        )
    teacher = load_teacher(job.teacher, device)
    require_size(teacher.backbone, job.preprocessing.size, device)
    if method.training.sync_batch_norm and method.teacher_batch_norm == "batch" and processes() > 1:
        for network in (teacher.backbone, teacher.head):
            synchronise_batch_norm(network, device)
    digests["teacher"] = teacher.digest
    return OnlineTeacher(teacher, method.teacher_batch_norm)


def _open_targets(
    job: StudentJob, method: Distillation, listing: Listing, digests: dict[str, str], device: torch.device
) -> StoredTeacher:
    """Open the teacher's stored outputs, and add their digests and the teacher's to ``digests``."""
    views, slots = int(method.teacher_views), method.teacher_view_slots()
    if len(job.targets) != len(slots):
        raise BingoError(
            f"student {job.name}: stored teacher views need {len(slots)} files of targets, got {len(job.targets)}; "
            f"pass --targets {len(slots)} times"
        )
    files = dict(zip(slots, job.targets, strict=True))
    for slot, path in files.items():
        expected = TargetsJob(
            preprocessing=job.preprocessing,
            recipe=method.training.views,
            precision=method.training.precision,
            layer=method.layer,
            number=slot,
            views=views,
            listing=job.listing,
            teacher=Path(),
            output=path,
        )
        drawn = describe_targets(expected, device)
        digests[f"targets-{slot}"], teacher = require_targets(path, job.listing, listing, drawn)
        require_same(path, "teacher", teacher, digests.setdefault("teacher", teacher), job.targets[0])
    return StoredTeacher(files, views, device)


def _open_bags(job: StudentJob, digests: dict[str, str]) -> Bags:
    """Read the bags to draw positives from, and add their digest to ``digests``."""
    if job.bags is None:
        raise BingoError(f"student {job.name}: method {job.student.method} needs --bags; pass it")
    bags = read_bags(job.bags)
    require_same(job.bags, "dataset", bags.attributes["dataset_digest"], digests["dataset"], job.listing)
    if "teacher_digest" in bags.attributes and "teacher" in digests:
        source = job.targets[0] if job.targets else job.teacher or job.bags
        require_same(job.bags, "teacher", bags.attributes["teacher_digest"], digests["teacher"], source)
    digests["bags"] = bags.attributes["digest"]
    return bags
