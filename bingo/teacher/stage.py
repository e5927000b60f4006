"""Entry point of the teacher stage."""

from pathlib import Path

import torch

from bingo.artifacts import digest_json, provenance
from bingo.data.images import open_images
from bingo.data.listing import read_listing
from bingo.data.loader import TrainingBatches
from bingo.engine.device import describe
from bingo.engine.log_csv import write_log
from bingo.engine.state import TrainingState
from bingo.engine.train import train
from bingo.jobs import TeacherJob
from bingo.methods.moco import MocoMethod
from bingo.tensors import write_tensors
from bingo.views.recipes import RECIPES


def train_teacher(
    job: TeacherJob,
    name: str,
    listing_path: Path,
    output: Path,
    log_csv: Path,
    device: torch.device,
    workers: int,
) -> None:
    """Pretrain a teacher and write backbone and head to ``output`` (safetensors), the log to ``log_csv``.

    Raises:
        BingoError: an input is damaged, or the loss is not finite.
    """
    listing = read_listing(listing_path, "train")
    settings, teacher = job.model_dump(mode="json"), job.teacher
    machine = describe(teacher.training, device)
    inputs = {"dataset": listing.digest}
    identity = digest_json([settings, inputs, machine])
    torch.manual_seed(teacher.seed)  # initial weights; nothing later draws from it
    method = MocoMethod(teacher)
    data = TrainingBatches(
        open_images(listing),
        method.views,
        RECIPES[teacher.training.views],
        job.preprocessing,
        teacher.training.batch_size,
        teacher.seed,
        bags=None,
    )
    state = TrainingState(output.with_suffix(".state.pt"), identity)
    with state.exclusively():
        rows = train(method, data, teacher.training, state, device, workers, f"teacher {name}")
        write_log(log_csv, rows)
        tensors = {f"backbone.{key}": value for key, value in method.backbone.state_dict().items()}
        tensors |= {f"head.{key}": value for key, value in method.head.state_dict().items()}
        metadata = {
            "backbone": teacher.backbone.model_dump(),
            "method": teacher.method,
            "provenance": provenance("teacher", job.version, settings, inputs, seed=teacher.seed, **machine),
        }
        write_tensors(output, tensors, metadata)
        state.discard()
