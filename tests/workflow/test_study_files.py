"""The study files that the project ships: each shows its jobs."""

import re
import subprocess
import sys

import pytest
import yaml

from .conftest import ROOT

FILES = sorted((ROOT / "config").glob("*.yaml"))


def lay_out(folder, study):
    """Make what a study file names: class folders, files of weights, lists of images, published numbers."""
    for key in ("train", "val"):
        if key in study["data"]:
            path = folder / study["data"][key] / "class"
            path.mkdir(parents=True)
            (path / "image.jpg").touch()
    for teacher in study.get("teachers", {}).values():
        if "checkpoint" in teacher:
            (folder / teacher["checkpoint"]).parent.mkdir(parents=True, exist_ok=True)
            (folder / teacher["checkpoint"]).touch()
    for path in study["data"].get("label_lists", {}).values():
        (folder / path).parent.mkdir(exist_ok=True)
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


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_study_file_shows_its_jobs(path, workspace):
    study = yaml.safe_load(path.read_text())
    lay_out(workspace.folder, study)
    workspace.write(study)
    result = workspace.run("--dry-run", "--quiet", "rules")
    assert result.returncode == 0, result.stdout
    counts = {name: int(count) for name, count in re.findall(r"^(\w+) +(\d+)$", result.stdout, re.MULTILINE)}
    seeds, teachers, students = len(study.get("seeds", [0])), study["teachers"], study["students"]
    assert counts["student"] == seeds * len(students)
    assert counts.get("teacher", 0) + counts.get("imported_teacher", 0) == len(teachers)
    assert counts["bags"] == counts["sheets"] == len(study["bags"])
    assert counts["evaluation"] == len(evaluations(study))
    assert counts["table"] == len(study["tables"])


def test_the_workflow_is_found_where_the_catalog_looks(workspace):
    plans = []
    for snakefile in (ROOT / "Snakefile", ROOT / "workflow/Snakefile"):
        command = [sys.executable, "-m", "snakemake", "-n", "--quiet", "rules", "--snakefile", str(snakefile)]
        command += ["--configfile", str(ROOT / "config/config.yaml")]
        result = subprocess.run(command, cwd=workspace.folder, capture_output=True, text=True, check=True)
        plans.append(re.findall(r"^(\w+) +(\d+)$", result.stdout, re.MULTILINE))
    assert ("report", "1") in plans[0]
    assert plans[0] == plans[1]
    assert yaml.safe_load((ROOT / ".snakemake-workflow-catalog.yml").read_text())["usage"]["report"] is False


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_study_file_says_first_how_it_is_run_and_what_it_gives(path):
    header = path.read_text().partition("\n\n")[0]
    assert all(line.startswith("#") for line in header.splitlines())
    for word in ("run:", "takes:", "gives:"):
        assert word in header


def test_the_paper_has_four_teachers_and_four_students():
    study = yaml.safe_load((ROOT / "config/imagenet.yaml").read_text())
    students = study["students"]
    for method, objective in (("bingo", "paper"), ("bingo", "official"), ("seed", None), ("disco", None)):
        pairs = {
            (entry.get("teacher") or study["bags"][entry["bags"]]["teacher"], entry["backbone"]["architecture"])
            for entry in students.values()
            if entry["method"] == method
            and (entry.get("objective", "paper" if method == "bingo" else None) == objective)
        }
        assert len(pairs) == 16
    assert all(
        (entry.get("temperature"), entry.get("training", {}).get("weight_decay")) == (0.12, 4e-5)
        for entry in students.values()
        if entry["method"] == "bingo" and entry["backbone"]["architecture"] == "efficientnet_b0"
    )
