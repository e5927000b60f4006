"""A small finished study, made in this process's children, and each stage as a command on its files."""

import contextlib
import io
import logging
import os
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import faiss  # noqa: F401
import numpy as np
import sklearn.manifold  # noqa: F401
import torch
from PIL import Image
from torch import nn

# Stages import what they need when they are called; here, once, before the forks.
import bingo.stages.bags
import bingo.stages.embeddings
import bingo.stages.evaluation
import bingo.export.detectron2
import bingo.report.accuracy
import bingo.report.feature_map
import bingo.report.neighbours
import bingo.report.training
import bingo.report.page
import bingo.stages.student
import bingo.stages.targets
import bingo.stages.teacher  # noqa: F401
from bingo import cli, settings
from bingo.study.schema import parse_study
from bingo.training.state import TrainingState
from bingo.models.backbone import build_backbone
from bingo.study.plan import Plan
from bingo.study.sections import Backbone

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
    study_plan = plan()
    study, path = study_plan.study, study_plan.path
    train, val = path("data/train-listing.h5"), path("data/val-listing.h5")
    teacher, embeddings, taken = study_plan.weights("big", 0), path("embeddings/big.h5"), study_plan.weights("taken", 0)

    def add(name: str, argv: str, outputs: list[str], job: str | None = None, more: Sequence[str] = ()) -> None:
        words = [*argv.split(), *(["--settings", job] if job else []), *more]
        found[name] = Stage([str(word) for word in words], outputs)

    add("data", f"data --key data --output {train}", [train], settings.data_settings(study, "train"))
    add(
        "val data",
        f"data --key data --train-listing {train} --output {val}",
        [val],
        settings.data_settings(study, "val"),
    )
    pack = path("data/train.h5")
    packed = parse_study({**STUDY, "data": {**STUDY["data"], "pack": {}}}, "study")
    add("pack", f"pack --listing {train} --output {pack}", [pack], settings.pack_settings(packed, "train"))
    log = path("teachers/big.csv")
    add(
        "teacher",
        f"teacher --name big --listing {train} --output {teacher} --training-log {log}",
        [teacher, log],
        settings.teacher_settings(study, "big"),
    )
    add(
        "import",
        f"imported-teacher --checkpoint weights/moco.pth --output {taken}",
        [taken],
        settings.teacher_settings(study, "taken"),
    )
    add(
        "embeddings",
        f"embeddings --listing {train} --teacher {teacher} --output {embeddings}",
        [embeddings],
        settings.embeddings_settings(study),
    )
    # The same from parts, of which so few images fill but the second, and from packed images.
    parts = [path(f"embeddings/big-{number}.h5") for number in (1, 2)]
    made_from = ["--teacher", teacher, "--settings", settings.embeddings_settings(study)]
    for number, part in enumerate(parts, start=1):
        argv = ["embeddings", "--listing", pack, *made_from, "--part", f"{number}-of-2", "--output", part]
        found[f"embeddings {number}"] = Stage(argv, [part])
    gathered = path("embeddings/gathered.h5")
    shards = [word for part in parts for word in ("--shard", part)]
    found["gathered embeddings"] = Stage(
        ["embeddings", "--listing", pack, *made_from, *shards, "--output", gathered], [gathered]
    )
    parts = [path(f"bags/knn-{number}.h5") for number in (1, 2)]
    made_from = ["--teacher", teacher, "--embeddings", embeddings, "--settings", settings.bags_settings(study, "knn")]
    for number, part in enumerate(parts, start=1):
        argv = ["bags", "--listing", train, *made_from, "--part", f"{number}-of-2", "--output", part]
        found[f"knn bags {number}"] = Stage(argv, [part])
    gathered = path("bags/gathered.h5")
    shards = [word for part in parts for word in ("--shard", part)]
    found["gathered bags"] = Stage(["bags", "--listing", train, *made_from, *shards, "--output", gathered], [gathered])
    for name in study.bags:
        output, made_from = path(f"bags/{name}.h5"), study_plan.bags_inputs(name)
        sources = " ".join(f"--{key} {value}" for key, value in made_from.items())
        add(
            f"{name} bags",
            f"bags --listing {train} {sources} --output {output}",
            [output],
            settings.bags_settings(study, name),
        )
    sheet = path("bags/knn.png")
    add("sheet", f"sheets --listing {train} --bags {path('bags/knn.h5')} --page random={sheet}", [sheet])
    for student in study.students:
        inputs, folder = study_plan.student_inputs(student), path(f"students/{student}/seed-0")
        targets = inputs.get("targets", [])
        for target in targets:
            recipe_precision_layer, number, views = Path(target).stem.rsplit("-", 2)
            recipe, precision, layer = recipe_precision_layer.rsplit("-", 2)
            add(
                f"targets {number}",
                f"targets --listing {train} --teacher {teacher} --output {target}",
                [target],
                settings.targets_settings(study, recipe, precision, layer, int(number), int(views)),
            )
        sources = " ".join(f"--targets {target}" for target in targets) or f"--teacher {teacher}"
        add(
            f"{student} student",
            f"student --name {student} --listing {train} {sources} --bags {inputs['bags']} --output {folder}",
            [f"{folder}/{name}" for name in ("backbone.safetensors", "head.safetensors", "log.csv")],
            settings.student_settings(study, student, 0),
        )
    models = {name: study_plan.weights(name, 0) for name in ("big", *study.students)}
    for model, weights in models.items():
        result = path(f"evaluation/{model}/seed-0/knn-10.json")
        add(
            f"{model} evaluation",
            f"evaluation --listing {train} --val-listing {val} --model {weights} --output {result}",
            [result],
            settings.evaluation_settings(study, model, "knn-10", 0),
        )
    results = [path(f"evaluation/{model}/seed-0/knn-10.json") for model in models]
    table = path("tables/main.csv")
    add(
        "table",
        f"table --output {table} --published published.csv {' '.join(results)}",
        [table],
        settings.table_settings(study, "main", ["knn-10"]),
    )
    texts = [path("tables/main.md"), path("tables/main.tex")]
    add(
        "text",
        f"text --table {table} --markdown {texts[0]} --latex {texts[1]}",
        texts,
        settings.text_settings(study, "main"),
    )

    def draw(name: str, argv: str, job: str | None = None, more: Sequence[str] = ()) -> None:
        outputs = [path(f"figures/{name}.{suffix}") for suffix in ("svg", "png")]
        add(f"{name} figure", f"figure {argv} --output {outputs[0]} --output {outputs[1]}", outputs, job, more)

    draw("accuracy-main", f"accuracy --table {table}", settings.accuracy_figure_settings(study, "main"))
    logs = [f"{name}={file}" for name, file in study_plan.training_logs().items()]
    draw("training", "training", settings.training_figure_settings(study), logs)
    draw("purity-big", f"purity --listing {train} --embeddings {embeddings} --teacher {teacher}")
    draw("similarity-knn", f"similarity --listing {train} --bags {path('bags/knn.h5')}")
    draw(
        "map-online",
        f"map --listing {val} --split val --model {models['online']}",
        settings.map_figure_settings(study, "online"),
    )
    exported = path("export/taken.pkl")
    add("export", f"export {taken} --to detectron2 --output {exported}", [exported])
    own = path("teachers/own.safetensors")
    add(
        "own import",
        f"imported-teacher --checkpoint {models['online']} --output {own}",
        [own],
        settings.teacher_settings(study, "taken"),
    )
    figures = [path(f"figures/{name}.svg") for name in ("accuracy-main", "training", "purity-big", "similarity-knn")]
    shown = [f"--table {table}", *(f"--figure {figure}" for figure in figures)]
    shown += [f"--sheet knn/random={sheet}"]
    shown += [f"--bags {path(f'bags/{name}.h5')}" for name in study.bags]
    shown += [f"--model {weights}" for weights in (*models.values(), taken)]
    shown += [f"--benchmark student={path('benchmarks/student/online/seed-0.tsv')}"]
    add("inspect", "inspect weights/moco.pth", [])
    output = path("report.html")
    add("report", f"report --output {output} {' '.join(shown)}", [output], settings.report_settings(study, ""))
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
