"""Damage: a file that is not what it should be ends in one line that names it, or changes nothing.

Mutations are functions of a seed; `BINGO_DAMAGE=500` makes so many. What failed says its seed, which is its place in
the names of the tests: `pytest tests/faults/test_damage.py -k "seed-123"`.
"""

import os
import random
import shutil
from dataclasses import dataclass

import pytest
import torch

from . import mutations as m
from . import study as tiny
from .study import R

pytestmark = pytest.mark.slow

COUNT = int(os.environ.get("BINGO_DAMAGE", "100"))
LISTING, VAL = f"{R}/data/train-listing.h5", f"{R}/data/val-listing.h5"
TEACHER, STUDENT = f"{R}/teachers/big.safetensors", f"{R}/students/online/seed-0/backbone.safetensors"
HEAD, TAKEN = f"{R}/students/online/seed-0/head.safetensors", f"{R}/teachers/taken.safetensors"
TARGETS = f"{R}/targets/big/small-float32-projection-0-2.h5"
PHOTOS = ["photos/train/cat/00.jpg", "photos/train/cat/02.png", "photos/train/cat/04.webp", "photos/train/cat/06.gif"]


@dataclass(frozen=True)
class Kind:
    """A kind of file: which there are, what happens to them, and which stages read them."""

    files: list[str]
    mutations: tuple
    readers: list[str]
    free: frozenset[str] = frozenset()
    """Readers for whom another file of the kind is as good: what they write names its digest in the provenance."""
    named: tuple[str, ...] = ()
    """What a fault may name instead of the file."""
    from_user: bool = False
    """Whether users write such files: another valid one has other results, rightly."""


HDF5 = (*m.BYTES, m.hdf5_changed, m.hdf5_changed)
TENSORS = (*m.BYTES, m.tensors_changed, m.tensors_changed)
KINDS = {
    "listing": Kind(
        [LISTING],
        HDF5,
        ["teacher", "embeddings", "knn bags", "labels bags", "sheet", "targets 0", "online student", "big evaluation"],
        free=frozenset({"teacher", "embeddings", "labels bags", "targets 0", "big evaluation"}),
        named=(LISTING, "photos/"),
    ),
    "validation listing": Kind(
        [VAL],
        HDF5,
        ["big evaluation", "map-online figure"],
        free=frozenset({"big evaluation", "map-online figure"}),
        named=(VAL, "photos/"),
    ),
    "pack": Kind(
        [f"{R}/data/train.h5"],
        HDF5,
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
    "checkpoint": Kind(["weights/moco.pth"], m.BYTES, ["import", "inspect"], from_user=True),
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The study, another one of other images and weights, and the stages; the states of trainings are left."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("damage")
    for seed, name in enumerate(("study", "other")):
        stages = tiny.finish(folder / name, seed)
        for training in ("teacher", "online student"):
            rerun = folder / "rerun"
            tiny.link_tree(folder / name, rerun)
            tiny.interrupted(stages[training], rerun)
            for state in rerun.rglob("*state.pt"):
                state.rename(folder / name / state.relative_to(rerun))
            shutil.rmtree(rerun)
    return folder / "study", folder / "other", stages


@pytest.mark.parametrize("seed", range(COUNT), ids=lambda seed: f"seed-{seed}")
def test_damage_is_named_or_changes_nothing(seed, finished, tmp_path):
    whole, other, stages = finished
    kind, rng = list(KINDS.values())[seed % len(KINDS)], random.Random(seed)
    file, mutate, reader = rng.choice(kind.files), rng.choice(kind.mutations), rng.choice(kind.readers)
    folder, stage = tmp_path / "study", stages[reader]
    tiny.link_tree(whole, folder)
    for output in stage.outputs:
        (folder / output).unlink()
    what = mutate(folder / file, other / file, rng)
    before = set(folder.rglob("*"))
    outcome = tiny.command(stage.argv, folder)
    case = f"{file}: {what}; read by {reader}:\n{outcome.text}"
    assert outcome.code in (0, 1), f"hangs or crashes with {outcome.code}: {case}"
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
    differing = [output for output in stage.outputs if (folder / output).read_bytes() != (whole / output).read_bytes()]
    valid = kind.from_user or "(valid)" in what or (reader in kind.free and mutate is m.swapped)
    valid |= reader == "report" and mutate is m.tensors_changed  # it reads and shows what weights say of themselves
    assert not differing or valid, f"{differing} differ in silence: {case}"
