"""The teacher stage: pretrain a large backbone with MoCo-v2."""

import logging

import torch

from bingo.data.listing import read_listing
from bingo.models.checkpoint import write_teacher
from bingo.study.jobs import TeacherJob
from bingo.study.teachers import ImportedTeacher
from bingo.training.log_csv import write_log
from bingo.training.run import Origin, Sources, trained

log = logging.getLogger(__name__)


def run(job: TeacherJob, device: torch.device, workers: int) -> None:
    """Pretrain a teacher and write backbone and head (safetensors), and the log.

    Raises:
        BingoError: an input is damaged, or the loss is not finite.
    """
    listing = read_listing(job.listing, "train")
    teacher = job.teacher
    assert not isinstance(teacher, ImportedTeacher)
    sources = Sources(listing, {"dataset": listing.digest})
    origin = Origin(job.STAGE, job.STAGE_VERSION, job.settings)
    state_path, title = job.output.with_suffix(".state.pt"), f"teacher {job.name}"
    seed, preprocessing = teacher.own_seed(), job.preprocessing
    with trained(teacher, preprocessing, seed, sources, origin, state_path, title, device, workers, job.events) as run:
        if run is None:
            return
        write_log(job.training_log, run.rows)
        backbone, head = run.learner.backbone.state_dict(), run.learner.head.state_dict()
        metadata = {"method": teacher.method, "provenance": run.provenance}
        write_teacher(job.output, teacher.backbone, backbone, head, metadata)
        log.info("%s; %s, %s", run.summary, job.output, job.training_log)
