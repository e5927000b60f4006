"""The student stage: train a small backbone, alone or from a teacher and its bags."""

import logging
from pathlib import Path

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
from bingo.training.model import TeacherOutputs
from bingo.training.run import Origin, Sources, trained
from bingo.training.teacher import OnlineTeacher, StoredTeacher, describe_targets, require_targets

log = logging.getLogger(__name__)


def run(job: StudentJob, device: torch.device, workers: int) -> None:
    """Train a student and write `backbone.safetensors`, `head.safetensors` and `log.csv` into a folder.

    Raises:
        BingoError: an input is missing, damaged or belongs to another dataset or teacher, or the loss is not finite.
    """
    listing = read_listing(job.listing, "train")
    sources = _sources(job, listing, device)
    student = job.student
    origin = Origin(job.STAGE, job.STAGE_VERSION, job.settings)
    title, state_path = f"student {job.name} seed {job.seed}", job.output / "state.pt"
    seed, preprocessing = job.seed, job.preprocessing
    with trained(student, preprocessing, seed, sources, origin, state_path, title, device, workers, job.events) as run:
        if run is None:
            return
        write_log(job.output / "log.csv", run.rows)
        metadata = {
            "backbone": student.backbone.model_dump(),
            "method": student.method,
            "provenance": run.provenance,
        }
        write_tensors(job.output / "head.safetensors", run.learner.head.state_dict(), metadata)
        write_tensors(job.output / "backbone.safetensors", run.learner.backbone.state_dict(), metadata)
        log.info("%s; backbone, head and log in %s", run.summary, job.output)


def _sources(job: StudentJob, listing: Listing, device: torch.device) -> Sources:
    """Open what the method needs beside the images, and check that all of it belongs together."""
    method = job.student
    inputs = {"dataset": listing.digest}
    teacher: TeacherOutputs | None = None
    stored: int | None = None
    bags: Bags | None = None
    if isinstance(method, Distillation):
        if method.teacher_views == "online":
            if job.teacher is None:
                raise BingoError(f"student {job.name}: method {method.method} with an online teacher needs --teacher")
            if job.targets:
                raise BingoError(f"student {job.name}: --targets serve stored teacher views, but its teacher is online")
            network = load_teacher(job.teacher, device)
            require_size(network.backbone, job.preprocessing.size, device)
            if method.training.sync_batch_norm and method.teacher_batch_norm == "batch" and processes() > 1:
                for part in (network.backbone, network.head):
                    synchronise_batch_norm(part, device)
            teacher, inputs["teacher"] = OnlineTeacher(network, method.teacher_batch_norm), network.digest
        else:
            stored, numbers = method.teacher_views, method.teacher_view_numbers()
            if len(job.targets) != len(numbers):
                raise BingoError(
                    f"student {job.name}: {stored} stored teacher views need --targets {len(numbers)} times"
                )
            files = dict(zip(numbers, job.targets, strict=True))
            for number, path in files.items():
                drawn = describe_targets(_drawn(job, method, number), device)
                inputs[f"targets-{number}"], owner = require_targets(path, job.listing, listing, drawn)
                require_same(path, "teacher", owner, inputs.setdefault("teacher", owner), job.targets[0])
            teacher = StoredTeacher(files, stored, device)
    if method.draws_positives():
        if job.bags is None:
            raise BingoError(f"student {job.name}: method {method.method} needs --bags")
        bags = read_bags(job.bags)
        require_same(job.bags, "dataset", bags.attributes["dataset_digest"], listing.digest, job.listing)
        if "teacher_digest" in bags.attributes and isinstance(method, Distillation):
            source = job.targets[0] if job.targets else job.teacher or job.bags
            require_same(job.bags, "teacher", bags.attributes["teacher_digest"], inputs["teacher"], source)
        inputs["bags"] = bags.attributes["digest"]
    return Sources(listing, inputs, teacher, bags, stored)


def _drawn(job: StudentJob, method: Distillation, number: int) -> TargetsJob:
    """Return the job that must have stored a student's targets."""
    return TargetsJob(
        preprocessing=job.preprocessing,
        recipe=method.training.views,
        precision=method.training.precision,
        layer=method.layer,
        number=number,
        views=int(method.teacher_views),
        listing=job.listing,
        teacher=Path(),
        output=Path(),
    )
