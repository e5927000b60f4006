"""All methods, bags and kinds of teachers in one study, and one more method added as the documents say."""

import re
import shutil
import subprocess
import sys

import pandas as pd
import pytest

from bingo.artifacts.tensors import network_digest, read_metadata

from .conftest import COMMON, ROOT, TRAINING, Workspace, tiny_study, write_moco_checkpoint

pytestmark = pytest.mark.slow


def test_all_methods_bags_and_teachers_in_one_study(workspace):
    write_moco_checkpoint(workspace.folder / "checkpoints/moco.pth.tar")
    study = tiny_study()
    study["teachers"]["foreign"] = {"checkpoint": "checkpoints/moco.pth.tar"}
    study["teachers"]["student"] = {"checkpoint": "results/tiny/students/distilled/seed-0/backbone.safetensors"}
    study["bags"] |= {
        "kmeans": {"criterion": "kmeans", "teacher": "foreign", "clusters": 8},
        "label": {"criterion": "label"},
        "random": {"criterion": "random", "size": 3},
    }
    bingo, official = {"method": "bingo", **COMMON}, {"objective": "official", "inter_free_epochs": 1}
    cosine = {**COMMON, "training": {**TRAINING, "schedule": "cosine"}}
    study["students"] |= {
        "official": {**bingo, **official, "bags": "label", "teacher": "student"},
        "stored": {**bingo, "bags": "kmeans", "teacher_views": 2},
        "random": {**bingo, "bags": "random", "teacher": "big", "teacher_batch_norm": "batch"},
        "seed": {"method": "seed", "teacher": "foreign", **COMMON},
        "disco": {"method": "disco", "teacher": "big", "teacher_views": 1, **COMMON},
        "compress": {"method": "compress", "variant": "1q", "teacher": "foreign", "teacher_views": 1, **cosine},
    }
    del study["students"]["alone"]  # other tests train it
    study["evaluations"], study["tables"] = [], {}  # they know nothing of methods
    workspace.write(study)
    workspace.finish()

    results = workspace.folder / "results/tiny"
    for student in study["students"]:
        log = pd.read_csv(results / f"students/{student}/seed-0/log.csv")
        assert len(log) == 2
        assert log["loss"].gt(0).all()
    # Students of stored outputs are given no teacher, but their files name it.
    inputs = read_metadata(results / "students/stored/seed-0/backbone.safetensors")["provenance"]["inputs"]
    assert set(inputs) == {"dataset", "targets-0", "teacher", "bags"}
    foreign = read_metadata(results / "teachers/foreign.safetensors")
    assert inputs["teacher"] == network_digest(foreign)
    assert foreign["provenance"]["inputs"]["weights"]
    assert {str(path.relative_to(results / "targets")) for path in (results / "targets").rglob("*.*")} == {
        "big/small-auto-projection-0-1.h5",
        "big/small-auto-projection-1-1.h5",
        "foreign/small-auto-projection-0-2.h5",
        "foreign/small-auto-features-0-1.h5",
    }
    assert workspace.planned() == set()

    # Other students of stored outputs come and go without a rerun of these.
    students = study["students"]
    study["students"] = {name: entry for name, entry in students.items() if name not in ("disco", "compress")}
    stored = {"method": "seed", "teacher": "foreign", **COMMON}
    study["students"] |= {"same": {**stored, "teacher_views": 2}, "fewer": {**stored, "teacher_views": 1}}
    workspace.write(study)
    new = {"targets:foreign:small:auto:projection:0:1", "student:same:0", "student:fewer:0"}
    assert workspace.planned() == new | {"map_figure:same", "map_figure:fewer", "training_figure", "report"}

    # Another seed of every student needs no new stored outputs.
    study["students"], study["seeds"] = students, [0, 1]
    workspace.write(study)
    planned = workspace.planned()
    assert {f"student:{name}:1" for name in study["students"]} == {job for job in planned if "student:" in job}
    assert not {job for job in planned if job.split(":")[0] in ("targets", "teacher", "imported_teacher", "bags")}


def test_a_method_is_added_as_the_documents_say(tmp_path):
    section = (ROOT / "docs/developing.md").read_text().partition("## Add a method\n")[2].partition("\n## ")[0]
    (module,) = re.findall(r"```python.*?\n(.*?)```", section, re.DOTALL)
    checkout = tmp_path / "checkout"
    for name in ("bingo", "workflow", "config", "envs"):
        shutil.copytree(ROOT / name, checkout / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "Snakefile", checkout)
    (checkout / "bingo/methods/regress.py").write_text(module)
    registry = checkout / "bingo/methods/__init__.py"
    text = registry.read_text().replace("[Moco, ", "[Moco, Regress, ", 1)
    registry.write_text(text.replace("from bingo.study", "from bingo.methods.regress import Regress\nfrom bingo.study"))
    subprocess.run([sys.executable, "-m", "workflow.scripts.make_config_docs"], cwd=checkout, check=True)
    assert "method: regress" in (checkout / "config/README.md").read_text()

    study = tiny_study()
    study["students"] = {"new": {"method": "regress", "teacher": "big", **COMMON}}
    study["bags"], study["evaluations"] = {}, ["knn-1"]
    workspace = Workspace(tmp_path, checkout / "Snakefile")
    workspace.write(study)
    workspace.finish()
    log = pd.read_csv(tmp_path / "results/tiny/students/new/seed-0/log.csv")
    assert (log["loss"] >= 0).all()
    assert log["loss"].iloc[-1] < log["loss"].iloc[0] < 4  # squared distances of unit vectors
    assert (tmp_path / "results/tiny/evaluation/new/seed-0/knn-1.json").exists()
