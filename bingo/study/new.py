"""Text of a study file for a folder of images and a machine."""

import json
import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import jinja2
import yaml

from bingo.errors import BingoError

Scale = Literal["trial", "full"]
HELD_OUT_SHARE = 0.2
_MIN_IMAGES, MIN_VALIDATION = 16, 4
"""Minimum number of training images (ten neighbours and a batch) and of validation images (a feature map)."""
_TRIAL_IMAGES, _TRIAL_VALIDATION, _TRIAL_SEEN = 5_000, 1_000, 20_000
"""Images of a trial, and images that a network sees during training: about a minute on two cores."""
_SMALL, _SMALL_STEM = 64, 40
"""Largest input sides, in pixels, that need views without blur and a stem without stride."""
_LARGE = 160
"""Median shorter side, in pixels, from which 224 px discards more detail than it interpolates."""


@dataclass(frozen=True)
class FolderSurvey:
    """Facts about a folder of images."""

    train: Path
    val: Path | None
    """Folder of validation images with the same classes; None if there is none."""
    unused: list[str]
    """Other folders that are not used, with the reason."""
    names: list[str]
    """Training images, relative to `train`."""
    validation: list[str]
    """Validation images, relative to `val`."""
    classes: list[str]
    """Class folders of the training images; empty without labels."""
    held_out: set[str]
    """Training images to use for validation; empty if there is a validation folder or too few images."""
    unlabelled: str
    """Why there are no labels; empty with labels."""
    unreadable: dict[str, str]
    """Unreadable files, with the reason."""
    decoded: int
    """Number of images that were fully decoded; only the header of the others was read."""
    sides: tuple[int, int, int]
    """Smallest, median and largest shorter side, in pixels."""
    grey: bool
    """Whether fewer than 1 % of the decoded images have colour."""
    mean: float
    """Mean of the decoded pixels, in [0, 1]."""
    std: float
    """Standard deviation of the decoded pixels."""


@dataclass(frozen=True)
class Machine:
    """Facts about this machine that affect a study file."""

    cuda: bool
    cores: int


def study_text(
    name: str, folder: Path, output: Path, survey: FolderSurvey, machine: Machine, scale: Scale, teacher: Path | None
) -> str:
    """Return the YAML of a study for the surveyed images.

    Raises:
        BingoError: there are too few images, or they are too small.
    """
    held_out = survey.held_out
    readable = [name for name in survey.names if str(survey.train / name) not in survey.unreadable]
    images = sum(name not in held_out for name in readable)
    validation = len(readable) - images
    if survey.val is not None:
        validation = sum(str(survey.val / name) not in survey.unreadable for name in survey.validation)
    if images < _MIN_IMAGES:
        raise BingoError(
            f"--data: {survey.train} has {images} readable training images; a study needs at least {_MIN_IMAGES}"
        )
    trial = scale == "trial"
    used = min(images, _TRIAL_IMAGES) if trial else images
    size, why_size = _size(survey, trial)
    small = size <= _SMALL
    views = ("small" if survey.grey else "cifar") if small else "paper"
    stem = "small" if size <= (_SMALL_STEM if trial else _SMALL) else "imagenet"
    batch_size = _power_of_two(max(_MIN_IMAGES // 2, min(used // 6, 64 if trial else 256)))
    rate = 0.06 / 128 if trial else 0.03 / 256
    epochs = max(2, min(40, round(_TRIAL_SEEN / used))) if trial else 200
    evaluations, why_none = _evaluations(survey, validation, used, trial)
    other_scale = "full" if trial else "trial"
    other = ["bingo", "new", f"{name}-{other_scale}", "--data", str(folder), "--scale", other_scale]
    other += ["--teacher", str(teacher)] if teacher else []
    return _template().render(
        name=_scalar(name),
        other=shlex.join(other),
        folder=_scalar(str(folder)),
        file=shlex.quote(str(output)),
        scale=scale,
        takes=_takes(trial, used, size, stem, teacher is not None),
        survey=describe_survey(survey),
        train=_scalar(str(survey.train)),
        val=_scalar(str(survey.val)) if survey.val else None,
        validation=validation,
        held_out=HELD_OUT_SHARE if held_out else None,
        labelled=bool(survey.classes),
        class_folders=any("/" in path for path in survey.names),
        unlabelled=survey.unlabelled,
        max_train=_TRIAL_IMAGES if trial and images > _TRIAL_IMAGES else None,
        max_val=_TRIAL_VALIDATION,
        unreadable=len(survey.unreadable),
        workers=machine.cores if machine.cores > 2 else 0,
        pack=_pack_side(size) if trial and survey.sides[1] > 2 * _pack_side(size) else None,
        size=size,
        why_size=why_size,
        resize=size if small and survey.sides[1] <= _SMALL else round(size * 256 / 224),
        mean=f"{survey.mean:.3f}" if survey.grey else None,
        std=f"{max(survey.std, 0.01):.3f}",
        checkpoint=None if teacher is None else _scalar(str(teacher)),
        teacher="teacher" if teacher else "resnet10-w16" if trial else "resnet50",
        teacher_backbone=_backbone("resnet10" if trial else "resnet50", stem, 0.25 if trial else 1),
        student_backbone=_backbone("resnet10" if trial else "resnet18", stem, 0.125 if trial else 1),
        teacher_epochs=epochs,
        student_epochs=epochs,
        training=f"batch_size: {batch_size}, lr: {rate * batch_size:.4g}, views: {views}",
        queue_size=_power_of_two(min(used // 2, 65536)),
        key_momentum=0.99 if trial or used < 20_000 else None,
        evaluations=", ".join(evaluations),
        why_no_evaluations=why_none,
        title=_scalar(f"{name}: distilled, and trained alone"),
    )


def _size(survey: FolderSurvey, trial: bool) -> tuple[int, str]:
    """Return the side of the network input in pixels, and the reason."""
    median = survey.sides[1]
    if median < 8:
        raise BingoError(f"--data: the median shorter side of the images is {median} px; a study needs at least 8 px")
    native = median if median < _LARGE else 224
    if trial and native > _SMALL:
        return _SMALL, f"{native} would take {(native / _SMALL) ** 2:.0f} times as long"
    return native, "the size of the images" if median < _LARGE else "as in the paper"


def _pack_side(size: int) -> int:
    return 2 * size


def _backbone(architecture: str, stem: str, width: float) -> str:
    keys = [f"architecture: {architecture}"]
    keys += [f"stem: {stem}"] if stem != "imagenet" else []
    keys += [f"width: {width}"] if width != 1 else []
    return "{" + ", ".join(keys) + "}"


def _evaluations(survey: FolderSurvey, validation: int, images: int, trial: bool) -> tuple[list[str], str]:
    """Return the protocols that the data support; if none, the reason."""
    if not survey.classes:
        return [], f"accuracies need labels: {survey.unlabelled}"
    if validation < MIN_VALIDATION:
        return [], "accuracies need validation images, but there are too few images to hold some out"
    if trial:
        return ["linear-moco-small", "knn-10"], ""
    return ["linear-moco", *(["linear-moco-small"] if images < 20_000 else []), "knn-10"], ""


def _takes(trial: bool, images: int, size: int, stem: str, has_checkpoint: bool) -> str:
    """Return an estimate of the run time, based on measured rates."""
    if trial and not has_checkpoint:
        more = (
            f"\n#            {images:,} of the images are used, but all are decoded once"
            if images == _TRIAL_IMAGES
            else ""
        )
        return f"a few minutes on two cores; 600 photographs took 2.5 minutes on two cores with AVX2{more}"
    if trial:
        return "unknown; it depends on the teacher, which processes every image once per epoch of the student"
    if size != 224 or has_checkpoint or stem != "imagenet":
        return "not measured for these networks; on a GPU, similar to training them with other software"
    teacher, student = 200 * images / 3170, 200 * images / 2430
    minutes = (teacher + 2 * student) / 60
    time = f"{minutes / 60:.0f} hours" if minutes > 120 else f"{max(minutes, 1):.0f} minutes of training"
    return (
        f"about {time} on an H200 if data loading keeps up; estimated from rates measured there:\n"
        "#            3,170 images/s for the teacher, 2,430 images/s for a student with a larger teacher"
    )


def describe_survey(survey: FolderSurvey) -> str:
    """Return a one-line description of the images."""
    smallest, median, largest = survey.sides
    classes = f" in {len(survey.classes)} classes" if survey.classes else ", without labels"
    colour = "grey" if survey.grey else "in colour"
    sides = f"{median} px" if smallest == largest else f"{smallest} to {largest} px, median {median}"
    return f"{len(survey.names):,} files{classes}, {colour}; shorter side {sides}"


def _power_of_two(most: int) -> int:
    """Return the largest power of two up to ``most``, at least 2."""
    return 2 ** max(1, most.bit_length() - 1)


def _scalar(text: str) -> str:
    """Return a text as a YAML scalar, quoted only if necessary."""
    plain = re.fullmatch(r"[A-Za-z./][\w./-]*", text, re.ASCII) and yaml.safe_load(text) == text
    return text if plain else json.dumps(text, ensure_ascii=False)


def _template() -> Any:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("bingo.study", "."),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template("new.yaml.jinja")
