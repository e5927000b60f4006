"""Whole studies on other data than the demo's."""

import json

import pandas as pd
import pytest

from .conftest import folder_study, tiny_study, write_moco_checkpoint, write_photos


def test_without_labels_and_validation_the_study_ends_in_students_and_a_report(workspace):
    write_photos(workspace.folder / "photos", 24)
    workspace.write(folder_study())
    result = workspace.run()
    assert result.returncode == 0, result.stdout
    assert result.stdout.count("bingo: left out: evaluations and tables, because the data have no labels.") == 1
    made = {
        str(path.relative_to(workspace.folder / "results/tiny"))
        for path in workspace.folder.rglob("*.*")
        if "results/tiny" in str(path)
    }
    assert {"report.html", "students/distilled/seed-0/backbone.safetensors", "bags/knn.png"} <= made
    assert not (workspace.folder / "results/tiny/evaluation").exists()
    assert "have no labels" in (workspace.folder / "results/tiny/report.html").read_text()


def test_class_folders_with_loader_workers_are_trained_and_evaluated(workspace):
    for i, name in enumerate(["cat", "dog 1"]):
        write_photos(workspace.folder / "photos" / name, 12, seed=i)
        write_photos(workspace.folder / "held-out" / name, 6, seed=10 + i)
    study = folder_study(val="held-out", workers=2)
    study["evaluations"] = ["knn-1"]
    del study["students"]["alone"]
    workspace.write(study)
    result = workspace.run()
    assert result.returncode == 0, result.stdout
    table = pd.read_csv(workspace.folder / "results/tiny/tables/main.csv")
    for row in table.itertuples():
        model = row.teacher if pd.isna(row.student) else row.student
        path = workspace.folder / f"results/tiny/evaluation/{model}/seed-0/knn-1.json"
        assert json.loads(path.read_text())["metrics"]["top1"] == pytest.approx(row.mean, abs=1e-3)
    assert len(table) == 2


def test_a_teacher_without_students_has_a_row(workspace):
    study = tiny_study()
    study["students"], study["bags"], study["evaluations"] = {}, {}, ["knn-1"]
    workspace.write(study)
    result = workspace.run()
    assert result.returncode == 0, result.stdout
    (row,) = pd.read_csv(workspace.folder / "results/tiny/tables/main.csv").itertuples()
    found = json.loads((workspace.folder / "results/tiny/evaluation/big/seed-0/knn-1.json").read_text())
    assert (row.teacher, row.mean) == ("big", pytest.approx(found["metrics"]["top1"], abs=1e-3))


def test_imported_teachers_alone_are_evaluated_and_reported_without_a_training_figure(workspace):
    write_moco_checkpoint(workspace.folder / "checkpoints/moco.pth.tar")
    study = tiny_study()
    study["teachers"] = {"foreign": {"checkpoint": "checkpoints/moco.pth.tar"}}
    study["students"], study["bags"], study["evaluations"] = {}, {}, ["knn-1"]
    workspace.write(study)
    assert workspace.planned() == {
        *("data:train", "data:val", "imported_teacher:foreign", "evaluation:foreign:0:knn-1"),
        *("table:main", "table_text:main", "accuracy_figure:main", "report"),
    }
    result = workspace.run()
    assert result.returncode == 0, result.stdout
    results = workspace.folder / "results/tiny"
    assert not (results / "figures/training.svg").exists()
    (row,) = pd.read_csv(results / "tables/main.csv").itertuples()
    assert (row.teacher, row.protocol) == ("foreign", "knn-1")
    assert "foreign" in (results / "report.html").read_text()
