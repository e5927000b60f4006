"""A small finished study, made in this process's children, and each stage as a command on its files."""

import contextlib
import io
import logging
import os
import shlex
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TypeVar

import faiss  # noqa: F401
import numpy as np
import sklearn.manifold  # noqa: F401
import torch
from PIL import Image
from torch import nn

import bingo.export.detectron2  # noqa: F401
from bingo.cli import main as cli
from bingo.models.backbone import build_backbone
from bingo.study.job import Job, Role
from bingo.study.jobs import (
    BagsJob,
    DataJob,
    EmbeddingsJob,
    EvaluationJob,
    ImportJob,
    PackJob,
    StudentJob,
    TargetsJob,
    TeacherJob,
)
from bingo.study.plan import Plan
from bingo.study.report_jobs import (
    AccuracyFigureJob,
    FigureJob,
    MapFigureJob,
    PurityFigureJob,
    ReportJob,
    SheetsJob,
    SimilarityFigureJob,
    TableJob,
    TableTextJob,
    TrainingFigureJob,
)
from bingo.study.schema import parse_study
from bingo.study.sections import Backbone
from bingo.study.stages import JOBS
from bingo.training.state import TrainingState

# Stages are imported when they are called; here, once, before the forks.
for stage in JOBS:
    import_module(f"bingo.stages.{stage}")

TINY = {"architecture": "resnet10", "stem": "small", "width": 0.0625}
TRAINING = {"epochs": 2, "batch_size": 16, "views": "small", "precision": "float32"}
MOCO = {"method": "moco", "backbone": TINY, "training": TRAINING, "queue_size": 32}
BINGO = {**MOCO, "method": "bingo", "bags": "knn"}
STUDY = {
    "study": "tiny",
    "data": {
        "source": "folder",
        "train": "photos/train",
        "val": "photos/val",
        "preprocessing": {"size": 16, "resize": 16},
    },
    "teachers": {"big": MOCO, "taken": {"checkpoint": "weights/moco.pth"}},
    "bags": {
        "knn": {"criterion": "knn", "teacher": "big", "size": 3},
        "means": {"criterion": "kmeans", "teacher": "big", "clusters": 6},
        "labels": {"criterion": "label"},
    },
    "students": {"online": BINGO, "stored": {**BINGO, "teacher_views": 2}},
    "evaluations": ["knn-10"],
    "tables": {"main": {"title": "Tiny", "published": "published.csv"}},
}
PUBLISHED = """\
method,student,teacher,protocol,metric,published,source
seed,resnet18,big,knn-10,top1,56.25,Others 2021
seed,resnet34,big,knn-10,top1,58.5,"Others, 2021"
"""
AnyJob = TypeVar("AnyJob", bound=Job)
_SUFFIXES = ("jpg", "png", "webp", "gif")


@dataclass(frozen=True)
class Stage:
    """A command on files of the study, relative to its folder."""

    argv: list[str]
    outputs: list[str]


@dataclass(frozen=True)
class Outcome:
    """How a process ended."""

    code: int | None
    """Exit code; minus the signal that ended it; None where it did not end in time."""
    text: str
    """What it wrote to stdout and stderr."""


def apart(call: Callable[[], object], folder: Path, seconds: float = 60) -> Outcome:
    """Run ``call`` in a forked child whose working directory is ``folder``: a crash or hang of its own hurts nobody.

    The parent has imported everything, and must have no threads.
    """
    note = folder / ".output"
    child = os.fork()
    if child == 0:
        _run(call, folder, note)
    deadline = time.monotonic() + seconds
    while (ended := os.waitpid(child, os.WNOHANG))[0] == 0:
        if time.monotonic() > deadline:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            break
        time.sleep(0.002)
    text = note.read_text(errors="replace")
    note.unlink()
    return Outcome(os.waitstatus_to_exitcode(ended[1]) if ended[0] else None, text)


def _run(call: Callable[[], object], folder: Path, note: Path) -> None:
    code = 1
    try:
        output = os.open(note, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(output, 1)
        os.dup2(output, 2)
        sys.stdout = sys.stderr = io.TextIOWrapper(io.FileIO(2, "w", closefd=False), write_through=True)
        logging.getLogger().handlers.clear()  # pytest's
        os.chdir(folder)
        call()
        code = 0
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 0 if error.code is None else 1
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def command(argv: Sequence[str], folder: Path, seconds: float = 60) -> Outcome:
    """Run `bingo ARGV` in ``folder``."""

    def call() -> None:
        sys.argv = ["bingo", *argv]
        cli.main()

    return apart(call, folder, seconds)


def plan() -> Plan:
    """Return the plan of the study; the working directory is its folder."""
    return Plan(parse_study(STUDY, "study"))


def stages() -> dict[str, Stage]:
    """Return the stages in an order in which they can run, as the rules of the workflow call them.

    The working directory is the study's folder.
    """
    found: dict[str, Stage] = {}
    study = plan()

    def path(name: str) -> Path:
        return Path(study.path(name))

    def add(name: str, job: Job, outputs: Sequence[Path] = ()) -> None:
        settings = ["--settings", job.identity] if type(job).model_fields.keys() - job.roles() else []
        written = outputs or [file for name, file in job if job.roles().get(name) is Role.OUTPUT]
        options = shlex.split(job.flags(*job.roles()))
        found[name] = Stage(["stage", job.STAGE, *settings, *options], [str(file) for file in written])

    def changed(job: AnyJob, **fields: object) -> AnyJob:
        return job.model_copy(update=fields)

    train, pack = path("data/train-listing.h5"), path("data/train.h5")
    add("data", DataJob.of(study, "train"))
    add("val data", DataJob.of(study, "val"))
    packed = parse_study({**STUDY, "data": {**STUDY["data"], "pack": {}}}, "study")
    add("pack", PackJob.of(Plan(packed), "train"))
    add("teacher", TeacherJob.of(study, "big"))
    add("import", ImportJob.of(study, "taken"))
    embeddings, bags = EmbeddingsJob.of(study, "big"), BagsJob.of(study, "knn")
    add("embeddings", embeddings)
    # The same from parts, of which so few images fill but the second, and from packed images.
    for name, job, stem in (
        ("embeddings", changed(embeddings, listing=pack), "embeddings/big"),
        ("knn bags", bags, "bags/knn"),
    ):
        parts = [path(f"{stem}-{number}.h5") for number in (1, 2)]
        for number, part in enumerate(parts, start=1):
            add(f"{name} {number}", changed(job, part=f"{number}-of-2", output=part))
        gathered = parts[0].with_name("gathered.h5")
        add(f"gathered {name.rpartition(' ')[2]}", changed(job, shards=parts, output=gathered))
    for name in study.study.bags:
        add(f"{name} bags", BagsJob.of(study, name))
    sheet = path("bags/knn.png")
    add("sheet", SheetsJob(listing=train, bags=bags.output, pages={"random": sheet}), [sheet])
    for student in study.study.students:
        for target in study.targets_of(student):
            teacher, name = target.split("/")
            recipe, precision, layer, number, views = name.split("-")
            add(f"targets {number}", TargetsJob.of(study, teacher, recipe, precision, layer, int(number), int(views)))
        job = StudentJob.of(study, student, 0)
        written = [job.output / name for name in ("backbone.safetensors", "head.safetensors", "log.csv")]
        add(f"{student} student", job, written)
    models = ["big", *study.study.students]
    for model in models:
        add(f"{model} evaluation", EvaluationJob.of(study, model, 0, "knn-10"))
    results = [Path(study.result(model, 0, "knn-10")) for model in models]
    table = TableJob.of(study, "main")
    add("table", changed(table, results=results))
    add("text", TableTextJob.of(study, "main"))
    figures: list[FigureJob] = [
        AccuracyFigureJob.of(study, "main"),
        TrainingFigureJob.of(study),
        PurityFigureJob.of(study, "big"),
        SimilarityFigureJob.of(study, "knn"),
        MapFigureJob.of(study, "online"),
    ]
    for figure in figures:
        add(f"{figure.output[0].stem} figure", figure, figure.output)
    weights = {name: Path(study.weights(name, 0)) for name in (*models, "taken")}
    exported = str(path("export/taken.pkl"))
    command = ["export", str(weights["taken"]), "--to", "detectron2", "--output", exported]
    found["export"] = Stage(command, [exported])
    own = path("teachers/own.safetensors")
    add("own import", changed(ImportJob.of(study, "taken"), checkpoint=weights["online"], output=own))
    found["inspect"] = Stage(["inspect", "weights/moco.pth"], [])
    add(
        "report",
        changed(
            ReportJob.of(study),
            figure=[figure.output[0] for figure in figures[:-1]],
            sheet={"knn/random": sheet},
            model=list(weights.values()),
            benchmark={"student": [path("benchmarks/student/online/seed-0.tsv")]},
        ),
    )
    return found


def write_inputs(folder: Path, seed: int) -> None:
    """Write what users bring: photographs, a checkpoint, published numbers."""
    generator = np.random.default_rng(seed)
    for split, count in (("train", 48), ("val", 16)):
        for number in range(count):
            path = folder / f"photos/{split}/{('cat', 'dog')[number % 2]}/{number:02}.{_SUFFIXES[number // 2 % 4]}"
            path.parent.mkdir(parents=True, exist_ok=True)
            pixels = generator.integers(0, 256, (18 + number % 3, 20, 3), dtype=np.uint8)
            pixels[..., number % 2] //= 3
            Image.fromarray(pixels).save(path)
    (folder / "published.csv").write_text(PUBLISHED)
    torch.manual_seed(seed)
    state = {}
    for encoder in ("encoder_q", "encoder_k"):
        network = build_backbone(Backbone(architecture="resnet10", width=1 / 16)).state_dict()
        head = nn.Sequential(nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 8)).state_dict()
        network |= {f"fc.{name}": value for name, value in head.items()}
        state |= {f"module.{encoder}.{name}": value for name, value in network.items()}
    state |= {"module.queue": torch.randn(8, 64), "module.queue_ptr": torch.zeros(1, dtype=torch.long)}
    (folder / "weights").mkdir()
    torch.save({"epoch": 1, "arch": "resnet18", "state_dict": state}, folder / "weights/moco.pth")
    benchmark = folder / "results/tiny/benchmarks/student/online/seed-0.tsv"
    benchmark.parent.mkdir(parents=True)
    benchmark.write_text("s\th:m:s\tmax_rss\tmax_vms\n61.5\t0:01:01\t412.11\t2100.2\n")


def finish(folder: Path, seed: int) -> dict[str, Stage]:
    """Write the inputs of the study and run every stage."""
    folder.mkdir()
    write_inputs(folder, seed)
    with contextlib.chdir(folder):
        found = stages()
    for name, stage in found.items():
        outcome = command(stage.argv, folder)
        assert outcome.code == 0, f"{name}: {outcome.text}"
    return found


def interrupted(stage: Stage, folder: Path) -> None:
    """Run a training that is killed after its first epoch, so that its state is left."""

    def call() -> None:
        save = TrainingState.save

        def save_and_die(*arguments: object) -> None:
            save(*arguments)
            os.kill(os.getpid(), signal.SIGKILL)

        TrainingState.save = save_and_die
        sys.argv = ["bingo", *stage.argv]
        cli.main()

    assert apart(call, folder).code == -signal.SIGKILL


def link_tree(source: Path, target: Path) -> None:
    """Make a copy whose files are links to those of ``source``: cheap, to be changed by replacing files alone."""
    shutil.copytree(source, target, copy_function=os.link)
