"""`bingo new`: look at a folder of images and this machine, and write a study file that fits them."""

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
    """Look at this machine."""
    return Machine(torch.cuda.is_available(), len(os.sched_getaffinity(0)))


def write_study(name: str, folder: Path, output: Path, scale: Scale | None, teacher: Path | None) -> list[str]:
    """Write a study file for a folder of images; return what was found and what to do next, a line each.

    Args:
        name: the study's name.
        folder: the images.
        output: YAML file to write.
        scale: a trial of minutes, or the paper's networks and schedule; None for the latter where there is a GPU.
        teacher: checkpoint to distil; None to train a teacher.

    Raises:
        BingoError: the file exists, the name cannot be one, the folder holds too few images, or the checkpoint
            cannot be a teacher.
    """
    if output.exists():
        raise BingoError(f"{output}: exists already; delete it, or name another file with --output")
    if not re.fullmatch(r"[a-z0-9][a-z0-9_-]{0,63}", name):
        raise BingoError(f"STUDY: {name} is no name; take small letters, digits, - and _")
    said = [] if teacher is None else describe(teacher).splitlines()
    if teacher is not None and "can be used; in a study:" not in said:
        raise BingoError(f"--teacher: {teacher} cannot be a teacher; bingo inspect says why")
    machine = this_machine()
    found = survey(folder, machine.cores)
    text = study_text(name, folder, output, found, machine, scale or ("full" if machine.cuda else "trial"), teacher)
    Plan(parse_study(yaml.safe_load(text), str(output)))
    write_text(output, text)
    # Of a network of this project, what its images were like: the user decides whose size is kept.
    trained_on = [f"{teacher}: {line}" for line in said if line.startswith("trained on ")]
    return [*_findings(found), *trained_on, f"wrote {output}; next:", *_next(name, output)]


def _findings(found: FolderSurvey) -> list[str]:
    """Return what was found, a line each."""
    lines = [f"{found.train}: {describe_survey(found)}"]
    lines += [f"{found.val}: {len(found.validation):,} validation images"] if found.val else []
    lines += [f"left aside: {said}" for said in found.aside]
    lines += [f"no labels: {found.unlabelled}"] if found.unlabelled else []
    total = len(found.names) + len(found.validation)
    if found.decoded + len(found.unreadable) < total:
        lines.append(f"{found.decoded:,} of {total:,} were decoded, drawn at random; of others, headers were read")
    shown = [f"cannot be read: {printable(path)} ({fault})" for path, fault in sorted(found.unreadable.items())]
    lines += shown[:20] + ([f"and {len(shown) - 20:,} more"] if len(shown) > 20 else [])
    lines += [f"left out, because they cannot be read (on_bad_image: skip): {len(shown):,}"] if shown else []
    return lines


def _next(name: str, output: Path) -> list[str]:
    """Return the commands that come next; outside a checkout, Snakemake is told where the workflow is."""
    workflow = Path(__file__).parents[2] / "Snakefile"
    elsewhere = "" if Path("Snakefile").exists() or not workflow.exists() else f" --snakefile {workflow}"
    return [
        f"    snakemake --cores all --configfile {shlex.quote(str(output))}{elsewhere}",
        f"    bingo summary results/{name}",
        f"    bingo export results/{name}/students/bingo/seed-0/backbone.safetensors --to onnx --output {name}.onnx",
    ]
