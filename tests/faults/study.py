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
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

import faiss  # noqa: F401
import numpy as np
import sklearn.manifold  # noqa: F401
import torch
import yaml
from PIL import Image
from torch import nn

import bingo.export.detectron2  # noqa: F401
from bingo.cli import main as cli
from bingo.models.backbone import build_backbone
from bingo.study.job import Role
from bingo.study.jobs import PackJob
from bingo.study.report_jobs import SheetsJob
from bingo.study.sections import Backbone
from bingo.study.stages import JOBS
from bingo.training.state import TrainingState
from tests.study.every_job import every_job, plan_of

# Stages are imported when they are called; here, once, before the forks.
for stage in JOBS:
    import_module(f"bingo.stages.{stage}")

STUDY = yaml.safe_load("""
study: tiny
data: {source: folder, train: photos/train, val: photos/val, preprocessing: {size: 16, resize: 16}}
teachers:
  big: &moco
    method: moco
    backbone: {architecture: resnet10, stem: small, width: 0.0625}
    training: {epochs: 2, batch_size: 16, views: small, precision: float32}
    queue_size: 32
  taken: {checkpoint: weights/moco.pth}
bags:
  knn: {criterion: knn, teacher: big, size: 3}
  means: {criterion: kmeans, teacher: big, clusters: 6}
  labels: {criterion: label}
students:
  online: &bingo {<<: *moco, method: bingo, bags: knn}
  stored: {<<: *bingo, teacher_views: 2}
evaluations: [knn-10]
tables: {main: {title: Tiny, published: published.csv}}
""")
PUBLISHED = """\
method,student,teacher,protocol,metric,published,source
seed,resnet18,big,knn-10,top1,56.25,Others 2021
seed,resnet34,big,knn-10,top1,58.5,"Others, 2021"
"""
R = "results/tiny"


class Stage(NamedTuple):
    """A command on files of the study, relative to its folder."""

    argv: list[str]
    outputs: list[str]


class Outcome(NamedTuple):
    """How a process ended: exit code, minus its signal, or None if it did not end in time; and all that it wrote."""

    code: int | None
    text: str


def apart(call, folder, seconds=60):
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


def _run(call, folder, note):
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


def command(argv, folder, seconds=60):
    """Run `bingo ARGV` in ``folder``."""

    def call():
        sys.argv = ["bingo", *argv]
        cli.main()

    return apart(call, folder, seconds)


def stages():
    """Return the stages in an order in which they can run; the working directory is the study's folder."""
    jobs, found = every_job(STUDY), {}

    def add(name, job, outputs=(), **fields):
        job = job.model_copy(update=fields)
        settings = ["--settings", job.identity] if type(job).model_fields.keys() - job.roles() else []
        written = outputs or [file for field, file in job if job.roles().get(field) is Role.OUTPUT]
        written = [str(path) for file in written for path in (file if isinstance(file, list) else [file])]
        found[name] = Stage(["stage", job.STAGE, *settings, *shlex.split(job.flags())], written)

    def shards(name, job, stem, **fields):
        """The same from two parts, of which so few images fill but the second."""
        parts = [Path(f"{R}/{stem}-{number}.h5") for number in (1, 2)]
        for number, part in enumerate(parts, start=1):
            add(f"{name} {number}", job, part=f"{number}-of-2", output=part, **fields)
        add(f"gathered {name.split()[-1]}", job, shards=parts, output=parts[0].with_name("gathered.h5"), **fields)

    add("data", jobs["data train"])
    add("val data", jobs["data val"])
    pack = PackJob.of(plan_of({**STUDY, "data": {**STUDY["data"], "pack": {}}}), "train")
    add("pack", pack)
    add("teacher", jobs["teacher big"])
    add("import", jobs["teacher taken"])
    add("embeddings", jobs["embeddings big"])
    shards("embeddings", jobs["embeddings big"], "embeddings/big", listing=pack.output)
    shards("knn bags", jobs["bags knn"], "bags/knn")
    for name in STUDY["bags"]:
        add(f"{name} bags", jobs[f"bags {name}"])
    sheet = Path(f"{R}/bags/knn.png")
    listing, bags = jobs["data train"].output, jobs["bags knn"].output
    add("sheet", SheetsJob(listing=listing, bags=bags, pages={"random": sheet}), [sheet])
    add("targets 0", jobs["targets stored"])
    for name in STUDY["students"]:
        job = jobs[f"student {name} 0"]
        written = [job.output / file for file in ("backbone.safetensors", "head.safetensors", "log.csv")]
        add(f"{name} student", job, written)
    models = ["big", *STUDY["students"]]
    for model in models:
        add(f"{model} evaluation", jobs[f"knn-10 {model} 0"])
    add("table", jobs["table main"], results=[jobs[f"knn-10 {model} 0"].output for model in models])
    add("text", jobs["text main"])
    figures = [jobs[name] for name in ("accuracy main", "training", "purity big", "similarity knn", "map online")]
    for figure in figures:
        add(f"{figure.output[0].stem} figure", figure)
    weights = [jobs["teacher big"].output, *(jobs[f"knn-10 {name} 0"].weights for name in STUDY["students"])]
    taken, exported = jobs["teacher taken"].output, f"{R}/export/taken.pkl"
    found["export"] = Stage(["export", str(taken), "--to", "detectron2", "--output", exported], [exported])
    own = Path(f"{R}/teachers/own.safetensors")
    add("own import", jobs["teacher taken"], checkpoint=weights[1], output=own)
    found["inspect"] = Stage(["inspect", "weights/moco.pth"], [])
    add(
        "report",
        jobs["report"],
        figure=[figure.output[0] for figure in figures[:-1]],
        sheet={"knn/random": sheet},
        model=[*weights, taken],
        benchmark={"student": [Path(f"{R}/benchmarks/student/online/seed-0.tsv")]},
    )
    return found


def write_inputs(folder, seed):
    """Write what users bring: photographs, a checkpoint, published numbers."""
    generator = np.random.default_rng(seed)
    for split, count in (("train", 48), ("val", 16)):
        for number in range(count):
            suffix = ("jpg", "png", "webp", "gif")[number // 2 % 4]
            path = folder / f"photos/{split}/{('cat', 'dog')[number % 2]}/{number:02}.{suffix}"
            path.parent.mkdir(parents=True, exist_ok=True)
            pixels = generator.integers(0, 256, (18 + number % 3, 20, 3), dtype=np.uint8)
            pixels[..., number % 2] //= 3
            Image.fromarray(pixels).save(path)
    (folder / "published.csv").write_text(PUBLISHED)
    torch.manual_seed(seed)
    state = {"module.queue": torch.randn(8, 64), "module.queue_ptr": torch.zeros(1, dtype=torch.long)}
    for encoder in ("encoder_q", "encoder_k"):
        network = build_backbone(Backbone(architecture="resnet10", width=1 / 16)).state_dict()
        head = nn.Sequential(nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 8)).state_dict()
        network |= {f"fc.{name}": value for name, value in head.items()}
        state |= {f"module.{encoder}.{name}": value for name, value in network.items()}
    (folder / "weights").mkdir()
    torch.save({"epoch": 1, "arch": "resnet18", "state_dict": state}, folder / "weights/moco.pth")
    benchmark = folder / f"{R}/benchmarks/student/online/seed-0.tsv"
    benchmark.parent.mkdir(parents=True)
    benchmark.write_text("s\th:m:s\tmax_rss\tmax_vms\n61.5\t0:01:01\t412.11\t2100.2\n")


def finish(folder, seed):
    """Write the inputs of the study and run every stage; return the stages."""
    folder.mkdir()
    write_inputs(folder, seed)
    with contextlib.chdir(folder):
        found = stages()
    for name, stage in found.items():
        outcome = command(stage.argv, folder)
        assert outcome.code == 0, f"{name}: {outcome.text}"
    return found


def interrupted(stage, folder):
    """Run a training that is killed after its first epoch, so that its state is left."""

    def call():
        save = TrainingState.save

        def save_and_die(*arguments):
            save(*arguments)
            os.kill(os.getpid(), signal.SIGKILL)

        TrainingState.save = save_and_die
        sys.argv = ["bingo", *stage.argv]
        cli.main()

    assert apart(call, folder).code == -signal.SIGKILL


def link_tree(source, target):
    """Make a copy whose files are links to those of ``source``, to be changed by replacing files alone."""
    shutil.copytree(source, target, copy_function=os.link)
