"""The student stage: train a small backbone, alone or from a teacher and its bags."""

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
        BingoError: an input is missing, damaged or belongs to another dataset or teacher, or the loss is not finite.
    """
    student = job.student

    def write(learner: TrainingModel, rows: list[LogRow], provenance: dict[str, Any]) -> None:
        write_log(job.output / "log.csv", rows)
        metadata = {"backbone": student.backbone.model_dump(), "method": student.method, "provenance": provenance}
        write_tensors(job.output / "head.safetensors", learner.head.state_dict(), metadata)
        write_tensors(job.output / "backbone.safetensors", learner.backbone.state_dict(), metadata)

    inputs = _open_inputs(job, device)
    state_path, title = job.output / "state.pt", f"student {job.name} seed {job.seed}"
    train_method(student, job, job.seed, inputs, state_path, title, device, workers, write)


def _open_inputs(job: StudentJob, device: torch.device) -> Inputs:
    """Open what the method needs, and check that all of it belongs together."""
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
    """Return the network that runs in training, and enter its digest."""
    if job.teacher is None:
        raise BingoError(f"student {job.name}: method {method.method} with an online teacher needs --teacher")
    if job.targets:
        raise BingoError(f"student {job.name}: --targets serve stored teacher views, but its teacher is online")
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
    """Return the stored outputs of a teacher, and enter their digests and its own."""
    views, numbers = int(method.teacher_views), method.teacher_view_slots()
    if len(job.targets) != len(numbers):
        raise BingoError(f"student {job.name}: {views} stored teacher views need --targets {len(numbers)} times")
    files = dict(zip(numbers, job.targets, strict=True))
    for number, path in files.items():
        expected = TargetsJob(
            preprocessing=job.preprocessing,
            recipe=method.training.views,
            precision=method.training.precision,
            layer=method.layer,
            number=number,
            views=views,
            listing=job.listing,
            teacher=Path(),
            output=path,
        )
        drawn = describe_targets(expected, device)
        digests[f"targets-{number}"], teacher = require_targets(path, job.listing, listing, drawn)
        require_same(path, "teacher", teacher, digests.setdefault("teacher", teacher), job.targets[0])
    return StoredTeacher(files, views, device)


def _open_bags(job: StudentJob, digests: dict[str, str]) -> Bags:
    """Return the bags that positives are drawn from, and enter their digest."""
    if job.bags is None:
        raise BingoError(f"student {job.name}: method {job.student.method} needs --bags")
    bags = read_bags(job.bags)
    require_same(job.bags, "dataset", bags.attributes["dataset_digest"], digests["dataset"], job.listing)
    if "teacher_digest" in bags.attributes and "teacher" in digests:
        source = job.targets[0] if job.targets else job.teacher or job.bags
        require_same(job.bags, "teacher", bags.attributes["teacher_digest"], digests["teacher"], source)
    digests["bags"] = bags.attributes["digest"]
    return bags
