"""The teacher stage: pretrain a large backbone with MoCo-v2."""

from typing import Any

import torch

from bingo.data.listing import read_listing
from bingo.models.checkpoint import write_teacher
from bingo.study.jobs import TeacherJob
from bingo.training.log_csv import write_log
from bingo.training.model import TrainingModel
from bingo.training.state import LogRow
from bingo.training.train_method import Inputs, train_method


def run(job: TeacherJob, device: torch.device, workers: int) -> None:
    """Pretrain a teacher; write backbone and head (safetensors) and the log (CSV).

    Raises:
        BingoError: an input is damaged, or the loss is not finite.
    """
    teacher = job.teacher

    def write(model: TrainingModel, rows: list[LogRow], provenance: dict[str, Any]) -> None:
        write_log(job.training_log, rows)
        metadata = {"method": teacher.method, "provenance": provenance}
        write_teacher(job.output, teacher.backbone, model.backbone.state_dict(), model.head.state_dict(), metadata)

    listing = read_listing(job.listing, "train")
    inputs = Inputs(listing, {"dataset": listing.digest})
    state_path, title = job.output.with_suffix(".state.pt"), f"teacher {job.name}"
    train_method(teacher, job, teacher.own_seed(), inputs, state_path, title, device, workers, write)
