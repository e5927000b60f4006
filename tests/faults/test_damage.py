"""Damage: a file that is not what it should be ends in one line that names it, or changes nothing.

Mutations are functions of a seed; `BINGO_DAMAGE=500` makes so many. What failed says its seed, which is its place in
the names of the tests: `pytest tests/faults/test_damage.py -k "seed-123"`.
"""

import gzip
import json
import os
import random
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from bingo.data.arrays import load_idx
from bingo.data.listing import read_listing
from bingo.errors import BingoError
from bingo.evaluation.detection.annotations import read_annotations
from bingo.evaluation.detection.coco import CocoImages
from bingo.evaluation.subsets import listed_rows
from bingo.study.job import Job
from bingo.study.plan import plan_or_exit
from bingo.study.stages import JOBS

from . import mutations as m
from . import study as tiny

COUNT = int(os.environ.get("BINGO_DAMAGE", "100"))
R = "results/tiny"
LISTING, VAL = f"{R}/data/train-listing.h5", f"{R}/data/val-listing.h5"
TEACHER, STUDENT = f"{R}/teachers/big.safetensors", f"{R}/students/online/seed-0/backbone.safetensors"
HEAD, TAKEN = f"{R}/students/online/seed-0/head.safetensors", f"{R}/teachers/taken.safetensors"
TARGETS = f"{R}/targets/big/small-float32-projection-0-2.h5"
PHOTOS = ["photos/train/cat/00.jpg", "photos/train/cat/02.png", "photos/train/cat/04.webp", "photos/train/cat/06.gif"]


@dataclass(frozen=True)
class Kind:
    """A kind of file: which there are, what happens to them, and who reads them."""

    files: list[str]
    mutations: tuple[m.Mutation, ...]
    readers: list[str]
    """Stages, or functions of `READERS`."""
    free: frozenset[str] = frozenset()
    """Readers to whom another file of the kind is as good: nothing else they read belongs to this one alone. What they
    write names the file's digest in its provenance."""
    named: tuple[str, ...] = ()
    """What a fault may name in place of the file: what it is part of, or what it disagrees with."""
    from_user: bool = False
    """Whether a user writes such files: another one that is valid has other results, rightly."""


HDF5 = (*m.BYTES, m.hdf5_changed, m.hdf5_changed, m.chunk_zeroed)
TENSORS = (*m.BYTES, m.tensors_changed, m.tensors_changed)
KINDS = {
    "listing": Kind(
        [LISTING],
        HDF5,
        ["teacher", "embeddings", "knn bags", "labels bags", "sheet", "targets 0", "online student", "big evaluation"],
        free=frozenset({"teacher", "embeddings", "labels bags", "targets 0", "big evaluation"}),
        named=(LISTING, "list the data anew"),
    ),
    "validation listing": Kind(
        [VAL],
        HDF5,
        ["big evaluation", "map-online figure"],
        free=frozenset({"big evaluation", "map-online figure"}),
        named=(VAL, "list the data anew"),
    ),
    "pack": Kind(
        [f"{R}/data/train.h5"],
        HDF5[:-1],
        ["embeddings 1", "gathered embeddings"],
        free=frozenset({"embeddings 1"}),
        named=(f"{R}/data/train.h5", "embeddings/big-"),
    ),
    "embeddings shard": Kind([f"{R}/embeddings/big-2.h5"], HDF5, ["gathered embeddings"]),
    "bags shard": Kind([f"{R}/bags/knn-2.h5"], HDF5, ["gathered bags"]),
    "teacher": Kind(
        [TEACHER],
        TENSORS,
        ["embeddings", "targets 0", "online student", "big evaluation", "knn bags", "report", "purity-big figure"],
        free=frozenset({"embeddings", "targets 0", "big evaluation", "report"}),
    ),
    "embeddings": Kind([f"{R}/embeddings/big.h5"], HDF5, ["knn bags", "means bags", "purity-big figure"]),
    "bags": Kind(
        [f"{R}/bags/{name}.h5" for name in ("knn", "means", "labels")],
        HDF5,
        ["online student", "stored student", "sheet", "similarity-knn figure", "report"],
        free=frozenset({"report"}),
    ),
    "targets": Kind([TARGETS], HDF5, ["stored student"]),
    "student": Kind(
        [STUDENT],
        TENSORS,
        ["online evaluation", "map-online figure", "report"],
        free=frozenset({"online evaluation", "map-online figure", "report"}),
    ),
    "imported teacher": Kind([TAKEN], TENSORS, ["export"], free=frozenset({"export"})),
    "own checkpoint": Kind([STUDENT, HEAD], TENSORS, ["own import"], named=(STUDENT, HEAD)),
    "teacher's state": Kind([f"{R}/teachers/big.state.pt"], m.BYTES, ["teacher"]),
    "student's state": Kind([f"{R}/students/online/seed-0/state.pt"], m.BYTES, ["online student"]),
    "result": Kind(
        [f"{R}/evaluation/{name}/seed-0/knn-10.json" for name in ("big", "online")],
        (*m.BYTES, *m.TEXT, m.digit_changed, m.json_changed),
        ["table"],
    ),
    "table": Kind([f"{R}/tables/main.csv"], (*m.BYTES, *m.TEXT), ["text", "accuracy-main figure", "report"]),
    "training log": Kind(
        [f"{R}/teachers/big.csv", f"{R}/students/online/seed-0/log.csv"], (*m.BYTES, *m.TEXT), ["training figure"]
    ),
    "figure": Kind([f"{R}/figures/accuracy-main.svg"], (*m.BYTES, *m.TEXT), ["report"]),
    "contact sheet": Kind([f"{R}/bags/knn.png"], m.BYTES, ["report"]),
    "listed image": Kind(PHOTOS, m.BYTES, ["teacher", "embeddings", "sheet"]),
    "image": Kind(PHOTOS, m.BYTES, ["data"], from_user=True),
    "benchmark": Kind([f"{R}/benchmarks/student/online/seed-0.tsv"], (*m.BYTES, *m.TEXT), ["report"], from_user=True),
    "published numbers": Kind(["published.csv"], (*m.BYTES, *m.TEXT), ["table"], from_user=True),
    "checkpoint": Kind(["weights/moco.pth"], (*m.BYTES, m.torch_changed), ["import", "inspect"], from_user=True),
    "label list": Kind(["labels.txt"], (*m.BYTES, *m.TEXT), ["labels"], from_user=True),
    "annotations": Kind(["coco.json"], (*m.BYTES, *m.TEXT, m.json_changed), ["annotations"], from_user=True),
    "study": Kind(["study.yaml"], (m.yaml_changed, m.yaml_changed, *m.TEXT), ["plan"], from_user=True),
    "named set": Kind(
        [f"fashion/train-{name}.gz" for name in ("images-idx3-ubyte", "labels-idx1-ubyte")],
        m.BYTES[:-1],
        ["idx"],
        named=("fashion",),
    ),
    "settings": Kind(
        [f"settings/{name}.json" for name in ("teacher", "table", "report", "online student", "data")],
        (m.json_changed, m.json_changed, m.truncated, *m.TEXT),
        ["settings"],
        named=("--settings",),
        from_user=True,
    ),
}


# ---- readers that are no stage of their own: each prints what it has read


def read_labels(path: Path) -> None:
    print(listed_rows(read_listing(Path(LISTING), "train"), path).tolist())


def read_coco(path: Path) -> None:
    images = CocoImages(Path("photos/train/cat"), read_annotations(path, masks=True))
    print([images.target(position) for position in images.trainable()])


def read_study(path: Path) -> None:
    try:
        content = yaml.safe_load(path.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        # Snakemake's own reader stops here, with a line of its own.
        raise BingoError(f"{path}: no YAML") from error
    if not isinstance(content, dict):
        raise BingoError(f"{path}: no mapping")  # likewise
    plan = plan_or_exit(content, [path])
    print(plan.all_results(), plan.figures(), plan.sheets(), plan.benchmarks())


def read_idx(path: Path) -> None:
    images, labels = load_idx(path.parent, "train")
    print(images.sum(), images.shape, labels.tolist())


def read_settings(path: Path) -> None:
    kind: type[Job] = JOBS[path.stem.rpartition(" ")[2]]
    needed = [name for name in kind.roles() if kind.model_fields[name].is_required()]
    files = {name: Path("x") if kind.model_fields[name].annotation is Path else "x" for name in needed}
    print(kind.read(f"@{path}", files))


READERS = {
    "labels": read_labels,
    "annotations": read_coco,
    "plan": read_study,
    "idx": read_idx,
    "settings": read_settings,
}


def architecture_label(reader: Callable[[Path], None], path: str) -> Callable[[], None]:
    """Return a call that ends as the command line does."""

    def call() -> None:
        try:
            reader(Path(path))
        except BingoError as error:
            print(f"bingo: error: {error}")
            sys.exit(1)

    return call


# ---- the study


@dataclass(frozen=True)
class Finished:
    """The study, and another one of other images and weights."""

    folder: Path
    other: Path
    stages: dict[str, tiny.Stage]


def write_more(folder: Path, stages: dict[str, tiny.Stage], seed: int) -> None:
    """Write the files that no stage of the study reads, and states of trainings."""
    cats = sorted((folder / "photos/train/cat").iterdir())
    (folder / "labels.txt").write_text("".join(f"{path.name}\n" for path in cats[seed::3]))
    images = [{"id": n, "file_name": path.name, "height": 18 + n % 3, "width": 20} for n, path in enumerate(cats[:6])]
    for image, path in zip(images, cats, strict=False):
        image["height"] = Image.open(path).height
    boxes = [
        {
            "image_id": n,
            "category_id": 1 + n % 2,
            "bbox": [n, 2.5, 8, 6],
            "area": 48,
            "iscrowd": 0,
            "segmentation": [[n, 2, n + 8, 2, n + 8, 8]],
        }
        for n in range(6)
    ]
    categories = [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]
    (folder / "coco.json").write_text(json.dumps({"images": images, "categories": categories, "annotations": boxes}))
    (folder / "study.yaml").write_text(yaml.safe_dump({**tiny.STUDY, "seeds": [seed]}))
    (folder / "fashion").mkdir()
    pixels = np.random.default_rng(seed).integers(0, 256, (20, 28, 28), dtype=np.uint8)
    head = b"".join(number.to_bytes(4) for number in (2051, 20, 28, 28))
    (folder / "fashion/train-images-idx3-ubyte.gz").write_bytes(gzip.compress(head + pixels.tobytes()))
    labels = (2049).to_bytes(4) + (20).to_bytes(4) + bytes(n % 10 for n in range(20))
    (folder / "fashion/train-labels-idx1-ubyte.gz").write_bytes(gzip.compress(labels))
    (folder / "settings").mkdir()
    for name in ("teacher", "table", "report", "online student", "data"):
        argv = stages[name].argv
        (folder / f"settings/{name}.json").write_text(argv[argv.index("--settings") + 1])


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("damage")
    for seed, name in enumerate(("study", "other")):
        stages = tiny.finish(folder / name, seed)
        write_more(folder / name, stages, seed)
        for training in ("teacher", "online student"):
            rerun = folder / "rerun"
            tiny.link_tree(folder / name, rerun)
            tiny.interrupted(stages[training], rerun)
            for state in rerun.rglob("*state.pt"):
                state.rename(folder / name / state.relative_to(rerun))
            shutil.rmtree(rerun)
    return Finished(folder / "study", folder / "other", stages)


# ---- the test


def names():
    kinds = list(KINDS)
    return [
        pytest.param(seed, kinds[seed % len(kinds)], id=f"seed-{seed}-{kinds[seed % len(kinds)]}")
        for seed in range(COUNT)
    ]


@pytest.mark.parametrize(("seed", "name"), names())
def test_damage_is_named_or_changes_nothing(seed, name, finished, tmp_path):
    kind, rng = KINDS[name], random.Random(seed)
    file, mutate, reader = rng.choice(kind.files), rng.choice(kind.mutations), rng.choice(kind.readers)
    folder = tmp_path / "study"
    tiny.link_tree(finished.folder, folder)
    stage = finished.stages.get(reader, tiny.Stage([], []))
    for output in stage.outputs:
        (folder / output).unlink()
    what = mutate(folder / file, finished.other / file, rng)
    before = set(folder.rglob("*"))
    if reader in READERS:
        expected = tiny.apart(architecture_label(READERS[reader], file), finished.folder)
        assert expected.code == 0, expected.text
        outcome = tiny.apart(architecture_label(READERS[reader], file), folder)
    else:
        outcome = tiny.command(stage.argv, folder)
    case = f"{file}: {what}; read by {reader}:\n{outcome.text}"
    assert outcome.code is not None, f"hangs: {case}"
    assert outcome.code in (0, 1), f"crashed with {outcome.code}: {case}"
    assert "Traceback" not in outcome.text, case
    faults = [line for line in outcome.text.splitlines() if line.startswith("bingo: error: ")]
    written = {str(path.relative_to(folder)) for path in set(folder.rglob("*")) - before if path.is_file()}
    if outcome.code == 1:
        assert len(faults) == 1, case
        assert any(place in faults[0] for place in kind.named or (file,)), f"names another file: {case}"
        # A training that cannot go on keeps the state of its last epoch.
        left = {path for path in written if not path.endswith((".pt", ".lock"))}
        assert left <= {".output"}, f"left {left}: {case}"
        return
    assert not faults, case
    assert set(stage.outputs) <= written, case
    if reader in READERS:
        differing = ["what it read"] if outcome.text != expected.text else []
    else:
        differing = [o for o in stage.outputs if (folder / o).read_bytes() != (finished.folder / o).read_bytes()]
    valid = kind.from_user or "(valid)" in what or (reader in kind.free and mutate is m.swapped)
    valid |= reader == "report" and mutate is m.tensors_changed  # it reads and shows what weights say of themselves
    assert not differing or valid, f"{differing} differ in silence: {case}"
