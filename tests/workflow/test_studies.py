"""Whole studies on other data than the demo's, with other networks, and with faults that only a run can meet."""

import json
import os

import h5py
import pandas as pd
import pytest

from tests.evaluation.detection.shapes import write_shapes

from .conftest import TRAINING, folder_study, refused, tiny_study, write_moco_checkpoint, write_photos

pytestmark = pytest.mark.slow


def metrics(workspace, name):
    return json.loads((workspace.folder / f"results/tiny/evaluation/{name}.json").read_text())["metrics"]


def test_without_labels_and_validation_the_study_ends_in_students_and_a_report(workspace):
    write_photos(workspace.folder / "photos", 24)
    workspace.write(folder_study())
    assert workspace.finish().count("bingo: left out: evaluations and tables") == 1
    results = workspace.folder / "results/tiny"
    made = {str(path.relative_to(results)) for path in results.rglob("*.*")}
    assert {"report.html", "students/distilled/seed-0/backbone.safetensors", "bags/knn.png"} <= made
    assert {"figures/similarity-knn.svg", "figures/best-knn.png", "figures/map-distilled.svg"} <= made
    assert not any("evaluation" in name or "purity" in name for name in made)
    assert "Left out" in (results / "report.html").read_text()


def test_packed_class_folders_with_loader_workers_are_trained_and_evaluated(workspace):
    for i, name in enumerate(["cat", "dog 1"]):
        write_photos(workspace.folder / "photos" / name, 12, seed=i)
        write_photos(workspace.folder / "held-out" / name, 6, seed=10 + i)
    study = folder_study(val="held-out", workers=2, pack={"shorter_side": 28})
    study["evaluations"] = ["knn-1"]
    del study["students"]["alone"]
    workspace.write(study)
    workspace.finish()
    for split, count in (("train", 24), ("val", 12)):
        with h5py.File(workspace.folder / f"results/tiny/data/{split}.h5") as file:
            assert (file[f"{split}/size"][:].min(1) == 28).all()
            assert len(file[f"{split}/label"]) == count
    assert workspace.planned() == set()
    table = pd.read_csv(workspace.folder / "results/tiny/tables/main.csv").fillna({"student": ""})
    assert len(table) == 2
    for row in table.itertuples():
        found = metrics(workspace, f"{row.student or row.teacher}/seed-0/knn-1")
        assert found["top1"] == pytest.approx(row.mean, abs=1e-3)
    # Read from the folder again, the images are others: everything follows but their listings.
    workspace.write({**study, "data": {key: value for key, value in study["data"].items() if key != "pack"}})
    planned = workspace.planned()
    assert {"teacher:big", "embeddings:big", "bags:knn", "student:distilled:0", "map_figure:big"} <= planned
    assert not {job for job in planned if job.startswith(("data", "pack"))}


def test_imported_teachers_alone_are_evaluated_and_reported_without_a_training_figure(workspace):
    for name in ("a", "b"):
        write_moco_checkpoint(workspace.folder / name / "moco.pth.tar")
        os.utime(workspace.folder / name / "moco.pth.tar", (0, 0))
    study = tiny_study()
    study["teachers"] = {"foreign": {"checkpoint": "a/moco.pth.tar"}}
    study["students"], study["bags"], study["evaluations"] = {}, {}, ["knn-1"]
    workspace.write(study)
    workspace.finish()
    results = workspace.folder / "results/tiny"
    assert not (results / "figures/training.svg").exists()
    (row,) = pd.read_csv(results / "tables/main.csv").itertuples()
    assert (row.teacher, row.protocol) == ("foreign", "knn-1")
    assert row.mean == pytest.approx(metrics(workspace, "foreign/seed-0/knn-1")["top1"], abs=1e-3)
    assert "foreign" in (results / "report.html").read_text()
    # Another file of weights is imported again, however old it is.
    study["teachers"]["foreign"]["checkpoint"] = "b/moco.pth.tar"
    workspace.write(study)
    assert "imported_teacher:foreign" in workspace.planned()


def test_other_images_partial_labels_and_detectors_are_evaluated_where_they_are_asked_for(workspace):
    write_photos(workspace.folder / "photos", 24)
    for split in ("train", "val"):
        for i, name in enumerate(["cat", "dog"]):
            write_photos(workspace.folder / "pets" / split / name, 6, seed=i)
    shapes = {"source": "coco"}
    for seed, split in enumerate(("train", "val")):
        images, annotations = write_shapes(workspace.folder / "shapes" / split, 2, seed, 32)
        shapes |= {split: str(images), f"{split}_annotations": str(annotations)}
    study = folder_study()
    study["students"] = {"alone": study["students"]["alone"]}
    study["students"]["alone"]["backbone"] = {"architecture": "resnet10", "width": 0.0625}
    study["teachers"], study["bags"] = {}, {}
    pets = {"source": "folder", "train": "pets/train", "val": "pets/val"}
    study["transfer"], study["evaluations"] = {"pets": pets, "shapes": shapes}, ["knn-1", "pets-semi-10"]
    detection = {"title": "Shapes", "students": ["alone"], "evaluations": ["shapes-faster-rcnn-small"]}
    study["tables"]["detection"] = detection
    workspace.write(study)
    assert "left out: knn-1" in workspace.finish()  # the study's own images have no labels
    results = workspace.folder / "results/tiny"
    (row,) = pd.read_csv(results / "tables/main.csv").itertuples()
    semi = metrics(workspace, "alone/seed-0/pets-semi-10")
    assert (row.protocol, row.metric, row.mean) == ("pets-semi-10", "top1", pytest.approx(semi["top1"]))
    detected = metrics(workspace, "alone/seed-0/shapes-faster-rcnn-small")
    assert "box_ap50" in detected
    assert set(pd.read_csv(results / "tables/detection.csv")["metric"]) == set(detected)


def test_a_diverging_loss_stops_the_study_names_the_log_and_writes_nothing(workspace):
    study = tiny_study()
    study["teachers"]["big"]["training"] = {**TRAINING, "epochs": 4, "lr": 1.0e38}
    workspace.write(study)
    result = workspace.run("results/tiny/teachers/big.safetensors")
    refused(result, "teacher big", "step")
    assert "\nbingo: failed: logs/tiny/teacher/big.log: teacher big" in result.stdout
    assert not (workspace.folder / "results/tiny/teachers/big.safetensors").exists()
