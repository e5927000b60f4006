"""The jobs of every study file that the project ships."""

import re

import pytest
import yaml

from .conftest import ROOT, Workspace, refused, tiny_study

FILES = sorted((ROOT / "config").glob("*.yaml"))


def lay_out(folder, study):
    """Make what a study file names: class folders, files of weights, lists of images, published numbers."""
    for key in ("train", "val"):
        if key in study["data"]:
            path = folder / study["data"][key] / "class"
            path.mkdir(parents=True)
            (path / "image.jpg").touch()
    teachers = study.get("teachers", {}).values()
    files = [entry["checkpoint"] for entry in teachers if "checkpoint" in entry]
    for path in (*files, *study["data"].get("label_lists", {}).values()):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).touch()
    (folder / "config").symlink_to(ROOT / "config")


def evaluations(study):
    """Return every (network, seed, evaluation) of a study: of all networks, and of single tables."""
    bags, teachers, students = study["bags"], study["teachers"], study["students"]
    asked = {(model, evaluation) for model in (*teachers, *students) for evaluation in study["evaluations"]}
    for table in study["tables"].values():
        shown = table.get("students", list(students))
        taught = {
            students[name].get("teacher") or bags.get(students[name].get("bags"), {}).get("teacher") for name in shown
        }
        named = (taught - {None} if "students" in table else set(teachers)) if table.get("teachers", True) else set()
        asked |= {(model, evaluation) for model in (*named, *shown) for evaluation in table.get("evaluations", [])}
    seeds = study.get("seeds", [0])
    return {(model, seed, name) for model, name in asked for seed in (seeds if model in students else [0])}


def unless_slow(path):
    """The demo stands for the others."""
    return pytest.param(path, marks=[] if path.stem == "config" else pytest.mark.slow, id=path.stem)


@pytest.mark.parametrize("path", [unless_slow(path) for path in FILES])
def test_a_study_file_shows_its_jobs(path, tmp_path):
    # The Workflow Catalog looks in workflow/, users in the root.
    snakefile = ROOT / ("workflow/Snakefile" if path.stem == "config" else "Snakefile")
    workspace, study = Workspace(tmp_path, snakefile), yaml.safe_load(path.read_text())
    lay_out(tmp_path, study)
    workspace.write(study)
    output = workspace.finish("--dry-run", "--quiet", "rules")
    counts = {name: int(count) for name, count in re.findall(r"^(\w+) +(\d+)$", output, re.MULTILINE)}
    seeds, teachers, students = len(study.get("seeds", [0])), study["teachers"], study["students"]
    assert counts["student"] == seeds * len(students)
    assert counts.get("teacher", 0) + counts.get("imported_teacher", 0) == len(teachers)
    assert counts["bags"] == counts["sheets"] == len(study["bags"])
    assert counts["evaluation"] == len(evaluations(study))
    assert counts["table"] == len(study["tables"])


def test_a_fault_in_the_study_stops_snakemake_before_any_job(workspace):
    workspace.write({**tiny_study(), "data": {"source": "folder", "train": "nowhere"}})
    refused(workspace.run("--dry-run"), "data.train", "nowhere")
    assert not (workspace.folder / "results").exists()


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_study_file_says_first_how_it_is_run_and_what_it_gives(path):
    header = path.read_text().partition("\n\n")[0]
    assert all(line.startswith("#") for line in header.splitlines())
    for word in ("run:", "takes:", "gives:"):
        assert word in header


def test_the_papers_study_trains_every_method_for_four_teachers_and_four_students():
    study = yaml.safe_load((ROOT / "config/imagenet.yaml").read_text())
    found = {}
    for entry in study["students"].values():
        teacher = entry.get("teacher") or study["bags"].get(entry.get("bags"), {}).get("teacher")
        pairs = found.setdefault((entry["method"], entry.get("objective", "paper")), set())
        pairs.add((teacher, entry["backbone"]["architecture"]))
        if entry["method"] == "bingo" and entry["backbone"]["architecture"] == "efficientnet_b0":
            assert (entry.get("temperature"), entry.get("training", {}).get("weight_decay")) == (0.12, 4e-5)
    for method in (("bingo", "paper"), ("bingo", "official"), ("seed", "paper"), ("disco", "paper")):
        assert len(found[method]) == 16
