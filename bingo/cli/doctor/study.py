"""Whether a study fits this machine."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import yaml

from bingo.cli.doctor.finding import GB, Finding
from bingo.data.folder import is_image, walk
from bingo.errors import BingoError
from bingo.methods.moco import TrainedTeacher
from bingo.study.bags import KmeansBag, KnnBag
from bingo.study.images import FolderSet
from bingo.study.plan import Plan
from bingo.study.schema import Study, parse_study
from bingo.study.sections import RESNETS
from bingo.study.teachers import Teacher


def study(path: Path) -> Iterator[Finding]:
    """Compare a study with its data and with this machine."""
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
        if not isinstance(raw, dict):
            raise BingoError(f"{path}: holds no keys; config/README.md explains what a study file has")
        found = parse_study(raw, str(path))
        plan = Plan(found)
    except OSError as error:
        yield Finding("fail", f"{path} cannot be read ({error.strerror})", "name a study file")
        return
    except (BingoError, UnicodeDecodeError, yaml.YAMLError) as error:
        what, _, remedy = " ".join(str(error).split()).partition("; ")
        yield Finding("fail", what, remedy or f"correct {path}")
        return
    yield Finding("ok", f"{path}: its keys, folders and checkpoints")
    if plan.left_out:
        yield Finding(
            "note", f"{path}: left out: {plan.left_out}", "see data.val and data.held_out in config/README.md"
        )
    cores = len(os.sched_getaffinity(0))
    if found.data.workers > cores:
        what = f"{path}: data.workers is {found.data.workers}, but there are {cores} cores"
        yield Finding("note", what, f"set data.workers: {cores} at most")
    if found.data.preprocessing.decoder == "nvjpeg":
        import torch

        if not torch.cuda.is_available():
            yield Finding("fail", f"{path}: data.preprocessing.decoder: nvjpeg needs a GPU", "take the default, cpu")
    if (needed := embeddings_bytes(found, plan)) is not None:
        free = shutil.disk_usage(Path()).free
        what = f"embeddings take {needed / 1e6:,.1f} MB of {free / GB:.1f} GB of free disk"
        yield Finding("ok", what) if needed < free else Finding("fail", what, "free some, or run in another folder")


def embeddings_bytes(study: Study, plan: Plan) -> int | None:
    """Return what the embeddings of all teachers that bags ask for take; None where a width is not known before.

    Unreadable and held-out images are counted too.
    """
    names = {bag.teacher for bag in study.bags.values() if isinstance(bag, KnnBag | KmeansBag)}
    widths = [_features(study.teachers[name]) for name in names]
    images = plan.facts.most_images
    if images is None:
        assert isinstance(study.data, FolderSet)
        images = sum(is_image(name) for name in walk(Path(study.data.train)))
    return None if None in widths else 2 * images * sum(width for width in widths if width)


def _features(teacher: Teacher) -> int | None:
    """Return the width of a ResNet's features, None of what is told by a checkpoint or by another library."""
    if not isinstance(teacher, TrainedTeacher) or teacher.backbone.architecture not in RESNETS:
        return None
    block, _ = RESNETS[teacher.backbone.architecture]
    return round((512 if block == "BasicBlock" else 2048) * teacher.backbone.width)
