"""Running a stage in a test."""

from importlib import import_module

import torch


def run_stage(kind, threads=1, device=torch.device("cpu"), workers=0, **fields):  # noqa: B008
    """Run the stage of a job's class with these fields; return the job. What a job is called need not be given."""
    labels = {"key": "data", "name": "s"}
    missing = {name: label for name, label in labels.items() if name in kind.model_fields and name not in fields}
    job = kind(**missing, **fields)
    module = import_module(f"bingo.stages.{kind.STAGE}")
    if kind.DEVICE == "none":
        module.run(job, threads)
    else:
        module.run(job, device, workers)
    return job
