"""Check of a study file against its data and this machine."""

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
            raise BingoError(f"{path}: has no keys; see config/README.md for the keys of a study file")
        parsed = parse_study(raw, str(path))
        plan = Plan(parsed)
    except OSError as error:
        yield Finding("fail", f"{path} cannot be read ({error.strerror})", "correct the path")
        return
    except (BingoError, UnicodeDecodeError, yaml.YAMLError) as error:
        what, _, remedy = " ".join(str(error).split()).partition("; ")
        yield Finding("fail", what, remedy or f"correct {path}")
        return
    yield Finding("ok", f"{path}: keys, folders and checkpoints are valid")
    if plan.left_out:
        yield Finding(
            "note", f"{path}: left out: {plan.left_out}", "see data.val and data.held_out in config/README.md"
        )
    cores = len(os.sched_getaffinity(0))
    if parsed.data.workers > cores:
        what = f"{path}: data.workers is {parsed.data.workers}, but there are {cores} cores"
        yield Finding("note", what, f"set data.workers to {cores} or less")
    if parsed.data.preprocessing.decoder == "nvjpeg":
        import torch

        if not torch.cuda.is_available():
            yield Finding("fail", f"{path}: data.preprocessing.decoder: nvjpeg needs a GPU", "set decoder: cpu")
    if (needed := embeddings_bytes(parsed, plan)) is not None:
        free = shutil.disk_usage(Path()).free
        what = f"embeddings need {needed / 1e6:,.1f} MB; {free / GB:.1f} GB of disk space are free"
        remedy = "free disk space, or run in another folder: snakemake --directory"
        yield Finding("ok", what) if needed < free else Finding("fail", what, remedy)


def embeddings_bytes(study: Study, plan: Plan) -> int | None:
    """Return the size in bytes of the embeddings that the bags use; None if a feature width is unknown.

    Unreadable and held-out images are included.
    """
    names = {bag.teacher for bag in study.bags.values() if isinstance(bag, KnnBag | KmeansBag)}
    widths = [_features(study.teachers[name]) for name in names]
    images = plan.facts.most_images
    if images is None:
        assert isinstance(study.data, FolderSet)
        images = sum(is_image(name) for name in walk(Path(study.data.train)))
    return None if None in widths else 2 * images * sum(width for width in widths if width)


def _features(teacher: Teacher) -> int | None:
    """Return the feature width of a trained ResNet; None for checkpoints and for networks of other libraries."""
    if not isinstance(teacher, TrainedTeacher) or teacher.backbone.architecture not in RESNETS:
        return None
    block, _ = RESNETS[teacher.backbone.architecture]
    return round((512 if block == "BasicBlock" else 2048) * teacher.backbone.width)
