"""Entry point of the student stage."""

import logging
from pathlib import Path

import torch

from bingo.artifacts import require_same
from bingo.bags.bags import Bags, read_bags
from bingo.data.listing import Listing, read_listing
from bingo.engine.distributed import processes
from bingo.engine.fit import Origin, Sources, trained
from bingo.engine.learner import TeacherOutputs
from bingo.engine.log_csv import write_log
from bingo.errors import BingoError
from bingo.jobs import StudentJob, TargetsJob
from bingo.methods.method import Distillation
from bingo.models.backbone import require_size
from bingo.models.batch_norm import synchronise_batch_norm
from bingo.models.checkpoint import load_teacher
from bingo.targets.outputs import OnlineTeacher, StoredTeacher, require_targets
from bingo.targets.stage import describe_targets
from bingo.tensors import write_tensors

log = logging.getLogger(__name__)


def train_student(
    job: StudentJob,
    name: str,
    listing_path: Path,
    teacher_path: Path | None,
    targets_paths: list[Path],
    bags_path: Path | None,
    output: Path,
    device: torch.device,
    workers: int,
    events: Path | None = None,
) -> None:
    """Train a student and write `backbone.safetensors`, `head.safetensors` and `log.csv` into ``output``.

    Args:
        job: the stage's settings.
        name: name for progress lines.
        listing_path: listing of the training images.
        teacher_path: teacher of a method that distils, for `teacher_views: online`.
        targets_paths: its stored outputs, for a number of `teacher_views`: a file for each view number, in order.
        bags_path: bags of a method that draws positives.
        output: folder to write into.
        device: where to train.
        workers: loader processes.
        events: folder for TensorBoard's events; None to write none.

    Raises:
        BingoError: an input is missing, damaged or belongs to another dataset or teacher, or the loss is not finite.
    """
    listing = read_listing(listing_path, "train")
    sources = _sources(job, name, listing, listing_path, teacher_path, targets_paths, bags_path, device)
    student = job.student
    origin = Origin("student", job.version, job.model_dump(mode="json"))
    title = f"student {name} seed {job.seed}"
    state_path = output / "state.pt"
    seed, preprocessing = job.seed, job.preprocessing
    with trained(student, preprocessing, seed, sources, origin, state_path, title, device, workers, events) as run:
        if run is None:
            return
        write_log(output / "log.csv", run.rows)
        metadata = {
            "backbone": student.backbone.model_dump(),
            "method": student.method,
            "provenance": run.provenance,
        }
        write_tensors(output / "head.safetensors", run.learner.head.state_dict(), metadata)
        write_tensors(output / "backbone.safetensors", run.learner.backbone.state_dict(), metadata)
        log.info("%s; backbone, head and log in %s", run.summary, output)


def _sources(
    job: StudentJob,
    name: str,
    listing: Listing,
    listing_path: Path,
    teacher_path: Path | None,
    targets_paths: list[Path],
    bags_path: Path | None,
    device: torch.device,
) -> Sources:
    """Open what the method needs beside the images, and check that all of it belongs together."""
    method = job.student
    inputs = {"dataset": listing.digest}
    teacher: TeacherOutputs | None = None
    stored: int | None = None
    bags: Bags | None = None
    if isinstance(method, Distillation):
        if method.teacher_views == "online":
            if teacher_path is None:
                raise BingoError(f"student {name}: method {method.method} with an online teacher needs --teacher")
            if targets_paths:
                raise BingoError(f"student {name}: --targets serve stored teacher views, but its teacher is online")
            network = load_teacher(teacher_path, device)
            require_size(network.backbone, job.preprocessing.size, device)
            if method.training.sync_batch_norm and method.teacher_batch_norm == "batch" and processes() > 1:
                for part in (network.backbone, network.head):
                    synchronise_batch_norm(part, device)
            teacher, inputs["teacher"] = OnlineTeacher(network, method.teacher_batch_norm), network.digest
        else:
            stored, numbers = method.teacher_views, method.teacher_view_numbers()
            if len(targets_paths) != len(numbers):
                raise BingoError(f"student {name}: {stored} stored teacher views need --targets {len(numbers)} times")
            files = dict(zip(numbers, targets_paths, strict=True))
            for number, path in files.items():
                drawn = describe_targets(_targets_job(job, method, number), device)
                inputs[f"targets-{number}"], owner = require_targets(path, listing_path, listing, drawn)
                require_same(path, "teacher", owner, inputs.setdefault("teacher", owner), targets_paths[0])
            teacher = StoredTeacher(files, stored, device)
    if method.draws_positives():
        if bags_path is None:
            raise BingoError(f"student {name}: method {method.method} needs --bags")
        bags = read_bags(bags_path)
        require_same(bags_path, "dataset", bags.attributes["dataset_digest"], listing.digest, listing_path)
        if "teacher_digest" in bags.attributes and isinstance(method, Distillation):
            source = targets_paths[0] if targets_paths else teacher_path or bags_path
            require_same(bags_path, "teacher", bags.attributes["teacher_digest"], inputs["teacher"], source)
        inputs["bags"] = bags.attributes["digest"]
    return Sources(listing, inputs, teacher, bags, stored)


def _targets_job(job: StudentJob, method: Distillation, number: int) -> TargetsJob:
    """Return the settings with which a student's targets must have been made."""
    return TargetsJob(
        version=0,
        preprocessing=job.preprocessing,
        recipe=method.training.views,
        precision=method.training.precision,
        layer=method.layer,
        number=number,
        views=int(method.teacher_views),
    )
