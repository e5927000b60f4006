"""The imported_teacher stage: convert another project's checkpoint to a teacher."""

import logging

from bingo.artifacts.provenance import provenance
from bingo.artifacts.tensors import digest_tensors
from bingo.importers.load import load_checkpoint
from bingo.models.checkpoint import write_teacher
from bingo.study.jobs import ImportJob

log = logging.getLogger(__name__)


def run(job: ImportJob, threads: int) -> None:  # noqa: ARG001
    """Write the backbone and head of a checkpoint in the format of the teacher stage.

    Raises:
        BingoError: the checkpoint cannot be read, or does not match the settings.
    """
    imported = load_checkpoint(job.checkpoint, job.format, job.part, job.architecture)
    weights = {f"backbone.{name}": value for name, value in imported.backbone.items()}
    weights |= {f"head.{name}": value for name, value in imported.head.items()}
    facts = {
        "file": job.checkpoint.name,
        "format": imported.format,
        "part": imported.part,
        "left_out": imported.left_out,
    }
    inputs = {"weights": digest_tensors(weights)}
    metadata = {
        "method": f"imported ({imported.format})",
        "provenance": provenance("teacher", job.STAGE_VERSION, job.settings, inputs, **facts),
    }
    write_teacher(job.output, imported.spec, imported.backbone, imported.head, metadata, imported.activation)
    log.info("%s: %s, %s, weights %s", job.checkpoint, imported.format, imported.part, inputs["weights"][:12])
