"""A few numbers of each stage, by its version.

Where a change moves them, the stage's results have changed meaning: raise its STAGE_VERSION, so that users' results
are made anew, and write the new numbers under the new version. Never change the numbers of a version that stands.
"""

import json
import re

import h5py
import numpy as np
import pandas as pd
import pytest
import safetensors.torch
import torch

from bingo import bags, data, embeddings, evaluation, student, teacher
from bingo.bags.bags import read_bags
from bingo.bags.stage import make_bags
from bingo.config import Bingo, KnnBag, Moco, Teacher
from bingo.data.listing import read_listing
from bingo.embeddings.stage import make_embeddings
from bingo.evaluation.stage import evaluate
from bingo.jobs import BagsJob, EmbeddingsJob, EvaluationJob, StudentJob, TeacherJob
from bingo.student.stage import train_student
from bingo.teacher.stage import train_teacher

CPU = torch.device("cpu")
TRAINING = {"epochs": 2, "batch_size": 32, "lr": 0.005, "precision": "float32"}


def trained(first_loss, second_loss, moved):
    """Expect a training run; so short a way depends on rounding more than losses do."""
    return (*(pytest.approx(loss, rel=1e-3) for loss in (first_loss, second_loss)), pytest.approx(moved, rel=2e-2))


def measured(**metrics):
    """Expect metrics of 128 images; a close call may go the other way on another CPU."""
    return pytest.approx(metrics, abs=1.5 * 100 / 128)


def training_numbers(log_csv, backbone):
    """The losses of two epochs, and how far batch-norm's biases, which start at zero, have come."""
    tensors = safetensors.torch.load_file(backbone)
    biases = [value for name, value in tensors.items() if re.search(r"(bn\d|downsample\.1)\.bias$", name)]
    return (*pd.read_csv(log_csv)["loss"], float(torch.cat(biases).norm()))


def require(found, expected, stage):
    version = stage.STAGE_VERSION
    assert version in expected, f"write the numbers of {stage.__name__}'s version {version} here"
    assert found == expected[version], f"the numbers of {stage.__name__} moved: raise its STAGE_VERSION"


def test_data(listing_path, val_listing_path):
    found = {}
    for split, path in (("train", listing_path), ("val", val_listing_path)):
        listing = read_listing(path, split)
        found[split] = [listing.digest, listing.index[:3].tolist(), listing.label[:3].tolist()]
    version_1 = {
        "train": ["9f7d66c3a09fd77f956ae1c935ae9aa2f1198c67de21d33ac4ec37a3d6b6e409", [226, 267, 576], [6, 5, 5]],
        "val": ["55427ad088b08b8e329bea4ef6f65d0f1243b29bb6697f0323e1416186189b84", [42, 50, 53], [3, 4, 8]],
    }
    require(found, {1: version_1}, data)


@pytest.mark.parametrize(
    ("views", "expected"),
    [("paper", {1: trained(2.15677, 3.62704, 0.003409)}), ("small", {1: trained(2.10644, 3.64675, 0.003021)})],
)
def test_teacher(views, expected, listing_path, backbone, preprocessing, tmp_path):
    settings = {"method": "moco", "backbone": backbone.model_dump(), "head": {"dim": 16}, "queue_size": 40}
    settings |= {"training": {**TRAINING, "views": views}, "key_momentum": 0.9}
    job = TeacherJob(
        version=teacher.STAGE_VERSION, preprocessing=preprocessing, teacher=Teacher.model_validate(settings)
    )
    output, log_csv = tmp_path / "teacher.safetensors", tmp_path / "teacher.csv"
    train_teacher(job, "t", listing_path, output, log_csv, CPU, 0)
    require(training_numbers(log_csv, output), expected, teacher)


def test_embeddings(listing_path, teacher_path, preprocessing, tmp_path):
    job = EmbeddingsJob(version=embeddings.STAGE_VERSION, preprocessing=preprocessing)
    make_embeddings(job, listing_path, teacher_path, tmp_path / "embeddings.h5", CPU, 0)
    with h5py.File(tmp_path / "embeddings.h5") as file:
        embedding, projection = file["embedding"][:].astype(float), file["projection"][:].astype(float)
    # Means, because the resizing of uint8 images differs by a grey level between CPUs.
    found = (*embedding[[0, 9, 63]].mean(1), embedding.std(), *np.abs(projection[[0, 63]]).mean(1), projection.std())
    version_1 = pytest.approx((0.51405, 0.68961, 0.36506, 0.77457, 0.20192, 0.15419, 0.31127), rel=3e-3)
    require(found, {1: version_1}, embeddings)


def test_bags(listing_path, teacher_path, embeddings_path, tmp_path):
    job = BagsJob(version=bags.STAGE_VERSION, bags=KnnBag(criterion="knn", teacher="t", size=3))
    make_bags(job, listing_path, teacher_path, embeddings_path, tmp_path / "bags.h5")
    made = read_bags(tmp_path / "bags.h5")
    found = {
        "members": made.members[:9].tolist(),
        "drawn": made.draw(np.arange(6), seed=0, epoch=0).tolist(),
        "mean_similarity": made.attributes["mean_similarity"],
        "purity": made.attributes["purity"],
    }
    version_1 = {
        "members": [60, 17, 55, 62, 55, 45, 5, 22, 50],
        "drawn": [17, 45, 50, 32, 45, 48],
        "mean_similarity": pytest.approx(0.484717, rel=1e-3),
        "purity": 0.078125,
    }
    require(found, {1: version_1}, bags)


def train(student_settings, listing_path, teacher_path, bags_path, preprocessing, folder):
    job = StudentJob(version=student.STAGE_VERSION, preprocessing=preprocessing, student=student_settings, seed=1)
    train_student(job, "s", listing_path, teacher_path, bags_path, folder, CPU, 0)
    return training_numbers(folder / "log.csv", folder / "backbone.safetensors")


def test_student_moco(listing_path, backbone, preprocessing, tmp_path):
    settings = {"method": "moco", "backbone": backbone.model_dump(), "training": TRAINING, "queue_size": 40}
    found = train(Moco.model_validate(settings), listing_path, None, None, preprocessing, tmp_path)
    require(found, {1: trained(1.90434, 3.62999, 0.002156)}, student)


def test_student_bingo(listing_path, teacher_path, bags_path, backbone, preprocessing, tmp_path):
    settings = {"method": "bingo", "bags": "b", "backbone": backbone.model_dump(), "head": {"hidden": 32}}
    settings |= {"training": TRAINING, "queue_size": 40}
    found = train(Bingo.model_validate(settings), listing_path, teacher_path, bags_path, preprocessing, tmp_path)
    require(found, {1: trained(6.89125, 7.44355, 0.0222)}, student)


@pytest.mark.parametrize(
    ("protocol", "expected"),
    [
        ("knn-1", {1: measured(top1=53.90625)}),
        ("knn-10", {1: measured(top1=46.09375)}),
        ("linear-moco-small", {1: measured(top1=60.15625, top5=96.875)}),
    ],
)
def test_evaluation(protocol, expected, listing_path, val_listing_path, teacher_path, preprocessing, tmp_path):
    job = EvaluationJob(
        version=evaluation.STAGE_VERSION, preprocessing=preprocessing, model="t", protocol=protocol, seed=0
    )
    evaluate(job, listing_path, val_listing_path, teacher_path, tmp_path / "result.json", CPU, 0)
    metrics = json.loads((tmp_path / "result.json").read_text())["metrics"]
    require(metrics, expected, evaluation)
