"""Whole studies on other data than the demo's."""

import json

import h5py
import pandas as pd
import pytest

from tests.evaluation.detection.shapes import write_shapes

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
    assert {"figures/similarity-knn.svg", "figures/best-knn.png", "figures/map-distilled.svg"} <= made
    assert not any("evaluation" in name or "purity" in name for name in made)
    assert "have no labels" in (workspace.folder / "results/tiny/report.html").read_text()


def test_packed_class_folders_with_loader_workers_are_trained_and_evaluated(workspace):
    for i, name in enumerate(["cat", "dog 1"]):
        write_photos(workspace.folder / "photos" / name, 12, seed=i)
        write_photos(workspace.folder / "held-out" / name, 6, seed=10 + i)
    study = folder_study(val="held-out", workers=2, pack={"shorter_side": 28})
    study["evaluations"] = ["knn-1"]
    del study["students"]["alone"]
    workspace.write(study)
    result = workspace.run()
    assert result.returncode == 0, result.stdout
    for split, count in (("train", 24), ("val", 12)):
        with h5py.File(workspace.folder / f"results/tiny/data/{split}.h5") as file:
            assert (file[f"{split}/size"][:].min(1) == 28).all()
            assert len(file[f"{split}/label"]) == count
    assert workspace.planned() == set()
    table = pd.read_csv(workspace.folder / "results/tiny/tables/main.csv")
    for row in table.itertuples():
        model = row.teacher if pd.isna(row.student) else row.student
        path = workspace.folder / f"results/tiny/evaluation/{model}/seed-0/knn-1.json"
        assert json.loads(path.read_text())["metrics"]["top1"] == pytest.approx(row.mean, abs=1e-3)
    assert len(table) == 2
    # Read from the folder again, the images are others: everything follows but their listings.
    workspace.write({**study, "data": {key: value for key, value in study["data"].items() if key != "pack"}})
    planned = workspace.planned()
    assert {"teacher:big", "embeddings:big", "bags:knn", "student:distilled:0", "map_figure:big"} <= planned
    assert not {job for job in planned if job.startswith(("data", "pack"))}


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
        *("table:main", "table_text:main", "accuracy_figure:main", "map_figure:foreign", "report"),
    }
    result = workspace.run()
    assert result.returncode == 0, result.stdout
    results = workspace.folder / "results/tiny"
    assert not (results / "figures/training.svg").exists()
    (row,) = pd.read_csv(results / "tables/main.csv").itertuples()
    assert (row.teacher, row.protocol) == ("foreign", "knn-1")
    assert "foreign" in (results / "report.html").read_text()


def test_other_images_labels_in_part_and_detectors(workspace):
    """What single tables ask for is made for their networks alone; other images need none of the study's labels."""
    write_photos(workspace.folder / "photos", 24)
    for split in ("train", "val"):
        for i, name in enumerate(["cat", "dog"]):
            write_photos(workspace.folder / "pets" / split / name, 6, seed=i)
    files = {
        split: write_shapes(workspace.folder / "shapes" / split, 2, seed, 32) for seed, split in enumerate(("t", "v"))
    }
    study = folder_study()
    study["students"] = {"alone": study["students"]["alone"]}
    study["students"]["alone"]["backbone"] = {"architecture": "resnet10", "width": 0.0625}
    study["teachers"], study["bags"] = {}, {}
    study["transfer"] = {
        "pets": {"source": "folder", "train": "pets/train", "val": "pets/val"},
        "shapes": {
            "source": "coco",
            **{"train": str(files["t"][0]), "train_annotations": str(files["t"][1])},
            **{"val": str(files["v"][0]), "val_annotations": str(files["v"][1])},
        },
    }
    study["evaluations"] = ["knn-1", "pets-semi-10"]
    study["tables"]["detection"] = {
        "title": "Shapes",
        "students": ["alone"],
        "evaluations": ["shapes-faster-rcnn-small"],
    }
    workspace.write(study)
    result = workspace.run()
    assert result.returncode == 0, result.stdout
    assert "left out: knn-1, because the data have no labels." in result.stdout
    results = workspace.folder / "results/tiny"
    semi = json.loads((results / "evaluation/alone/seed-0/pets-semi-10.json").read_text())
    assert semi["facts"] == {"labels": 2}
    (row,) = pd.read_csv(results / "tables/main.csv").itertuples()
    assert (row.protocol, row.metric, row.mean) == ("pets-semi-10", "top1", pytest.approx(semi["metrics"]["top1"]))
    detected = json.loads((results / "evaluation/alone/seed-0/shapes-faster-rcnn-small.json").read_text())
    assert set(pd.read_csv(results / "tables/detection.csv")["metric"]) == set(detected["metrics"])
    assert "box_ap50" in detected["metrics"]
