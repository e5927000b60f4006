"""Entry point of the student stage."""

from pathlib import Path

import torch

from bingo.artifacts import digest_json, provenance, require_same
from bingo.bags.bags import Bags, read_bags
from bingo.config import Bingo
from bingo.data.images import open_images
from bingo.data.listing import read_listing
from bingo.data.loader import TrainingBatches
from bingo.engine.device import describe
from bingo.engine.log_csv import write_log
from bingo.engine.state import TrainingState
from bingo.engine.train import train
from bingo.errors import BingoError
from bingo.jobs import StudentJob
from bingo.methods import build_method
from bingo.models.checkpoint import Teacher, load_teacher
from bingo.tensors import write_tensors
from bingo.views.recipes import RECIPES


def train_student(
    job: StudentJob,
    name: str,
    listing_path: Path,
    teacher_path: Path | None,
    bags_path: Path | None,
    output: Path,
    device: torch.device,
    workers: int,
) -> None:
    """Train a student and write `backbone.safetensors`, `head.safetensors` and `log.csv` into ``output``.

    Raises:
        BingoError: an input is damaged or belongs to another dataset or teacher, or the loss is not finite.
    """
    if isinstance(job.student, Bingo) and (teacher_path is None or bags_path is None):
        raise BingoError(f"student {name}: method bingo needs --teacher and --bags")
    listing = read_listing(listing_path, "train")
    inputs = {"dataset": listing.digest}
    teacher: Teacher | None = None
    bags: Bags | None = None
    if teacher_path is not None:
        teacher = load_teacher(teacher_path, device)
        inputs["teacher"] = teacher.digest
    if bags_path is not None:
        bags = read_bags(bags_path)
        require_same(bags_path, "dataset", bags.attributes["dataset_digest"], listing.digest, listing_path)
        if teacher is not None and teacher_path is not None:
            require_same(bags_path, "teacher", bags.attributes["teacher_digest"], teacher.digest, teacher_path)
        inputs["bags"] = bags.attributes["digest"]

    settings, student = job.model_dump(mode="json"), job.student
    machine = describe(student.training, device)
    identity = digest_json([settings, inputs, machine])
    torch.manual_seed(job.seed)  # initial weights; nothing later draws from it
    method = build_method(student, teacher)
    data = TrainingBatches(
        open_images(listing),
        method.views,
        RECIPES[student.training.views],
        job.preprocessing,
        student.training.batch_size,
        job.seed,
        bags,
    )
    state = TrainingState(output / "state.pt", identity)
    with state.exclusively():
        rows = train(method, data, student.training, state, device, workers, f"student {name} seed {job.seed}")
        write_log(output / "log.csv", rows)
        metadata = {
            "backbone": student.backbone.model_dump(),
            "method": student.method,
            "provenance": provenance("student", job.version, settings, inputs, seed=job.seed, **machine),
        }
        write_tensors(output / "head.safetensors", method.head.state_dict(), metadata)
        write_tensors(output / "backbone.safetensors", method.backbone.state_dict(), metadata)
        state.discard()
