"""A study file fitted to a folder of images and to a machine, as text."""

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
"""Training images for ten neighbours and a batch; validation images for a map of features."""
_TRIAL_IMAGES, _TRIAL_VALIDATION, _TRIAL_SEEN = 5_000, 1_000, 20_000
"""Images of a trial, and how many a network sees in its training: what takes a minute on two cores."""
_SMALL, _SMALL_STEM = 64, 40
"""Sides of inputs up to which blur leaves nothing to recognise, and up to which networks must not begin with stride."""
_LARGE = 160
"""Median shorter side from which 224 px lose more than they invent."""


@dataclass(frozen=True)
class FolderSurvey:
    """A folder of images."""

    train: Path
    val: Path | None
    """Folder of validation images with the classes of the training images; None where there is none."""
    aside: list[str]
    """Folders beside `train` and `val` that were left aside, and why."""
    names: list[str]
    """Training images, relative to `train`."""
    validation: list[str]
    """Validation images, relative to `val`."""
    classes: list[str]
    """Class folders of the training images; none where they are no labels."""
    held_out: set[str]
    """Training images that validate instead; none where there are others, or too few."""
    unlabelled: str
    """Why there are no labels, empty where there are."""
    unreadable: dict[str, str]
    """Files that cannot be read, and why."""
    decoded: int
    """Images that were decoded to prove them sound; of others only the header was read."""
    sides: tuple[int, int, int]
    """Smallest, median and largest shorter side, in pixels."""
    grey: bool
    """Whether fewer than one decoded image in a hundred has any colour."""
    mean: float
    """Mean of the decoded pixels, in [0, 1]."""
    std: float
    """Their standard deviation."""


@dataclass(frozen=True)
class Machine:
    """What a study file takes into account of where it is written."""

    cuda: bool
    cores: int


def study_text(
    name: str, folder: Path, output: Path, found: FolderSurvey, machine: Machine, scale: Scale, teacher: Path | None
) -> str:
    """Return the YAML of a study that fits what was found.

    Raises:
        BingoError: there are too few images.
    """
    held = found.held_out
    sound = [name for name in found.names if str(found.train / name) not in found.unreadable]
    images = sum(name not in held for name in sound)
    validation = len(sound) - images
    if found.val is not None:
        validation = sum(str(found.val / name) not in found.unreadable for name in found.validation)
    if images < _MIN_IMAGES:
        raise BingoError(
            f"--data: {found.train} holds {images} training images; {_MIN_IMAGES} are the fewest for a study"
        )
    trial = scale == "trial"
    used = min(images, _TRIAL_IMAGES) if trial else images
    size, why_size = _size(found, trial)
    small = size <= _SMALL
    views = ("small" if found.grey else "cifar") if small else "paper"
    stem = "small" if size <= (_SMALL_STEM if trial else _SMALL) else "imagenet"
    batch_size = _power_of_two(max(_MIN_IMAGES // 2, min(used // 6, 64 if trial else 256)))
    rate = 0.06 / 128 if trial else 0.03 / 256
    epochs = max(2, min(40, round(_TRIAL_SEEN / used))) if trial else 200
    evaluations, why_none = _evaluations(found, validation, used, trial)
    scale_of_other = "full" if trial else "trial"
    other = ["bingo", "new", f"{name}-{scale_of_other}", "--data", str(folder), "--scale", scale_of_other]
    other += ["--teacher", str(teacher)] if teacher else []
    return _template().render(
        name=_scalar(name),
        other=shlex.join(other),
        folder=_scalar(str(folder)),
        file=shlex.quote(str(output)),
        scale=scale,
        takes=_takes(trial, used, size, stem, teacher is not None),
        found=describe_survey(found),
        train=_scalar(str(found.train)),
        val=_scalar(str(found.val)) if found.val else None,
        validation=validation,
        held_out=HELD_OUT_SHARE if held else None,
        labelled=bool(found.classes),
        class_folders=any("/" in path for path in found.names),
        unlabelled=found.unlabelled,
        max_train=_TRIAL_IMAGES if trial and images > _TRIAL_IMAGES else None,
        max_val=_TRIAL_VALIDATION,
        unreadable=len(found.unreadable),
        workers=machine.cores if machine.cores > 2 else 0,
        pack=_pack_side(size) if trial and found.sides[1] > 2 * _pack_side(size) else None,
        size=size,
        why_size=why_size,
        resize=size if small and found.sides[1] <= _SMALL else round(size * 256 / 224),
        mean=f"{found.mean:.3f}" if found.grey else None,
        std=f"{max(found.std, 0.01):.3f}",
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


def _size(found: FolderSurvey, trial: bool) -> tuple[int, str]:
    """Return the side of the input, and why."""
    median = found.sides[1]
    if median < 8:
        raise BingoError(f"--data: the images' shorter side is {median} px in the median; 8 are the least")
    native = median if median < _LARGE else 224
    if trial and native > _SMALL:
        return _SMALL, f"{native} would take {(native / _SMALL) ** 2:.0f} times as long"
    return native, "that of the images" if median < _LARGE else "the paper's"


def _pack_side(size: int) -> int:
    return 2 * size


def _backbone(architecture: str, stem: str, width: float) -> str:
    keys = [f"architecture: {architecture}"]
    keys += [f"stem: {stem}"] if stem != "imagenet" else []
    keys += [f"width: {width}"] if width != 1 else []
    return "{" + ", ".join(keys) + "}"


def _evaluations(found: FolderSurvey, validation: int, images: int, trial: bool) -> tuple[list[str], str]:
    """Return the protocols that the data allow, or why none does."""
    if not found.classes:
        return [], f"accuracies need labels: {found.unlabelled}"
    if validation < MIN_VALIDATION:
        return [], "accuracies need validation images, and there are too few images to hold some out"
    if trial:
        return ["linear-moco-small", "knn-10"], ""
    return ["linear-moco", *(["linear-moco-small"] if images < 20_000 else []), "knn-10"], ""


def _takes(trial: bool, images: int, size: int, stem: str, given: bool) -> str:
    """Return what is known of how long the study takes: measured rates, and what follows from them."""
    if trial and not given:
        more = (
            f"\n#            {images:,} of the images are used, but all are decoded once"
            if images == _TRIAL_IMAGES
            else ""
        )
        return f"some minutes on two cores; 600 photographs took two and a half, measured with AVX2{more}"
    if trial:
        return "not known: it depends on the teacher, which sees every image in each of the student's epochs"
    if size != 224 or given or stem != "imagenet":
        return "not measured for such networks; on a GPU, about as long as their training by other software"
    teacher, student = 200 * images / 3170, 200 * images / 2430
    minutes = (teacher + 2 * student) / 60
    time = f"{minutes / 60:.0f} hours" if minutes > 120 else f"{max(minutes, 1):.0f} minutes of training"
    return (
        f"about {time} on an H200, if its loaders keep up: estimated from 3,170 images/s of the teacher and\n"
        "#            2,430 of a student with a larger teacher, measured there"
    )


def describe_survey(found: FolderSurvey) -> str:
    """Return one line of what the images are."""
    smallest, median, largest = found.sides
    classes = f" in {len(found.classes)} classes" if found.classes else ", without labels"
    colour = "grey" if found.grey else "in colour"
    sides = f"{median} px" if smallest == largest else f"{smallest} to {largest} px, {median} in the median"
    return f"{len(found.names):,} files{classes}, {colour}; shorter side {sides}"


def _power_of_two(most: int) -> int:
    """Return the largest power of two that is at most ``most``, and at least 2."""
    return 2 ** max(1, most.bit_length() - 1)


def _scalar(text: str) -> str:
    """Return a text as YAML has it: as it is where that is safe."""
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
