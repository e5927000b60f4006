"""The file that holds what an evaluation found."""

import json
import logging
from collections.abc import Mapping
from pathlib import Path

from bingo.artifacts import atomic_checked, digest_json, provenance
from bingo.evaluation.probe import Measurement
from bingo.jobs import DetectionJob, EvaluationJob

log = logging.getLogger(__name__)


def write_result(
    output: Path,
    job: EvaluationJob | DetectionJob,
    found: Measurement,
    inputs: Mapping[str, str],
    machine: Mapping[str, str],
) -> None:
    """Write what a protocol found as one JSON: protocol, model, seed, metrics, facts, provenance, and their digest.

    Args:
        output: file to write.
        job: whose result it is.
        found: metrics and facts.
        inputs: name and digest of what it was measured with, the model among them.
        machine: where it was measured.
    """
    settings = job.model_dump(mode="json")
    stage = "detection" if isinstance(job, DetectionJob) else "evaluation"
    result = {
        "protocol": job.name,
        "model": job.model,
        "seed": job.seed,
        "metrics": found.metrics,
        "facts": found.facts,
        "provenance": provenance(stage, job.version, settings, inputs, **machine),
    }
    result["digest"] = digest_json(result)
    with atomic_checked(output) as temporary:
        temporary.write_text(json.dumps(result, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    log.info("%s, %s: %s %s", job.model, job.name, found.metrics, found.facts or "")
