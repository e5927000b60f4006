"""`bingo new`: inspect a folder of images and this machine, and write a study file for them."""

import os
import re
import shlex
from pathlib import Path

import torch
import yaml

from bingo.artifacts.files import write_text
from bingo.data.survey import printable, survey
from bingo.errors import BingoError
from bingo.importers.inspect import describe
from bingo.study.new import FolderSurvey, Machine, Scale, describe_survey, study_text
from bingo.study.plan import Plan
from bingo.study.schema import parse_study


def this_machine() -> Machine:
    """Return facts about this machine."""
    return Machine(torch.cuda.is_available(), len(os.sched_getaffinity(0)))


def write_study(name: str, folder: Path, output: Path, scale: Scale | None, teacher: Path | None) -> list[str]:
    """Write a study file for a folder of images; return the findings and the next commands as lines.

    Args:
        name: name of the study.
        folder: folder of images.
        output: YAML file to write.
        scale: `trial` for a trial of minutes, `full` for the paper's networks and schedule; None for `full` if there
            is a GPU, else `trial`.
        teacher: checkpoint to distil; None to train a teacher.

    Raises:
        BingoError: the file exists, the name is invalid, the folder has too few images, or the checkpoint cannot be
            a teacher.
    """
    if output.exists():
        raise BingoError(f"{output}: exists already; delete it, or name another file with --output")
    if not re.fullmatch(r"[a-z0-9][a-z0-9_-]{0,63}", name):
        raise BingoError(f"STUDY: {name} is not a valid name; use lower-case letters, digits, - and _")
    description = [] if teacher is None else describe(teacher).splitlines()
    if teacher is not None and "can be used; in a study:" not in description:
        raise BingoError(f"--teacher: {teacher} cannot be a teacher; run bingo inspect on it to see why")
    machine = this_machine()
    facts = survey(folder, machine.cores)
    text = study_text(name, folder, output, facts, machine, scale or ("full" if machine.cuda else "trial"), teacher)
    Plan(parse_study(yaml.safe_load(text), str(output)))
    write_text(output, text)
    # The preprocessing of a teacher of this project: the user decides whether to adopt it.
    trained_on = [f"{teacher}: {line}" for line in description if line.startswith("trained on ")]
    return [*_findings(facts), *trained_on, f"wrote {output}; next:", *_next(name, output)]


def _findings(facts: FolderSurvey) -> list[str]:
    """Return the findings of a survey as lines."""
    lines = [f"{facts.train}: {describe_survey(facts)}"]
    lines += [f"{facts.val}: {len(facts.validation):,} validation images"] if facts.val else []
    lines += [f"not used: {text}" for text in facts.unused]
    lines += [f"no labels: {facts.unlabelled}"] if facts.unlabelled else []
    total = len(facts.names) + len(facts.validation)
    if facts.decoded + len(facts.unreadable) < total:
        lines.append(f"{facts.decoded:,} of {total:,} images were decoded (random sample); only headers of the others")
    unreadable = [f"cannot be read: {printable(path)} ({fault})" for path, fault in sorted(facts.unreadable.items())]
    lines += unreadable[:20] + ([f"and {len(unreadable) - 20:,} more"] if len(unreadable) > 20 else [])
    lines += [f"left out because they cannot be read (on_bad_image: skip): {len(unreadable):,}"] if unreadable else []
    return lines


def _next(name: str, output: Path) -> list[str]:
    """Return the next commands; outside a checkout, they name the Snakefile."""
    workflow = Path(__file__).parents[2] / "Snakefile"
    snakefile = "" if Path("Snakefile").exists() or not workflow.exists() else f" --snakefile {workflow}"
    return [
        f"    snakemake --cores all --configfile {shlex.quote(str(output))}{snakefile}",
        f"    bingo summary results/{name}",
        f"    bingo export results/{name}/students/bingo/seed-0/backbone.safetensors --to onnx --output {name}.onnx",
    ]
