"""Entry points of the teacher stage: pretrain a teacher, or take over one that somebody has trained."""

import logging
from pathlib import Path

import torch

from bingo.artifacts import provenance
from bingo.checkpoints.load import load_checkpoint
from bingo.data.listing import read_listing
from bingo.engine.fit import Origin, Sources, trained
from bingo.engine.log_csv import write_log
from bingo.jobs import ImportJob, TeacherJob
from bingo.models.checkpoint import write_teacher
from bingo.tensors import digest_tensors

log = logging.getLogger(__name__)


def train_teacher(
    job: TeacherJob,
    name: str,
    listing_path: Path,
    output: Path,
    log_csv: Path,
    device: torch.device,
    workers: int,
    events: Path | None = None,
) -> None:
    """Pretrain a teacher and write backbone and head to ``output`` (safetensors), the log to ``log_csv``.

    ``events`` is a folder for TensorBoard's events; None to write none.

    Raises:
        BingoError: an input is damaged, or the loss is not finite.
    """
    listing = read_listing(listing_path, "train")
    teacher = job.teacher
    sources = Sources(listing, {"dataset": listing.digest})
    origin = Origin("teacher", job.version, job.model_dump(mode="json"))
    state_path, title = output.with_suffix(".state.pt"), f"teacher {name}"
    seed, preprocessing = teacher.seed, job.preprocessing
    with trained(teacher, preprocessing, seed, sources, origin, state_path, title, device, workers, events) as run:
        if run is None:
            return
        write_log(log_csv, run.rows)
        backbone, head = run.learner.backbone.state_dict(), run.learner.head.state_dict()
        write_teacher(
            output, teacher.backbone, backbone, head, {"method": teacher.method, "provenance": run.provenance}
        )
        log.info("%s; %s, %s", run.summary, output, log_csv)


def import_teacher(job: ImportJob, checkpoint: Path, output: Path) -> None:
    """Write the backbone and head of somebody's checkpoint to ``output``, as `train_teacher` does its own.

    Raises:
        BingoError: the checkpoint cannot be read, or is not what the settings say.
    """
    imported = load_checkpoint(checkpoint, job.format, job.part, job.architecture)
    weights = {f"backbone.{name}": value for name, value in imported.backbone.items()}
    weights |= {f"head.{name}": value for name, value in imported.head.items()}
    facts = {"file": checkpoint.name, "format": imported.format, "part": imported.part, "left_out": imported.left_out}
    inputs = {"weights": digest_tensors(weights)}
    metadata = {
        "method": f"imported ({imported.format})",
        "provenance": provenance("teacher", job.version, job.model_dump(mode="json"), inputs, **facts),
    }
    write_teacher(output, imported.spec, imported.backbone, imported.head, metadata, imported.activation)
    log.info("%s: %s, %s, weights %s", checkpoint, imported.format, imported.part, inputs["weights"][:12])
