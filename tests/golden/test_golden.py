"""A few numbers of each stage, by its version.

If a change moves them, the stage's results have changed meaning: raise its STAGE_VERSION, so that users' results are
recomputed, and write the new numbers under the new version. Never change the numbers of an existing version.
"""

import json
import re

import h5py
import numpy as np
import pandas as pd
import pytest
import safetensors.torch
import torch
from pydantic import TypeAdapter

from bingo.bags.bags import read_bags
from bingo.data.listing import read_listing
from bingo.methods.moco import TrainedTeacher
from bingo.study.bags import KmeansBag, KnnBag, LabelBag, RandomBag
from bingo.study.jobs import BagsJob, DataJob, EmbeddingsJob, EvaluationJob, StudentJob, TargetsJob, TeacherJob
from bingo.study.schema import Student
from tests.stage import run_stage

TRAINING = {"epochs": 2, "batch_size": 32, "lr": 0.005, "precision": "float32"}
STEADY = {**TRAINING, "schedule": {"milestones": [1], "factor": 0.999999}}


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


def require(found, expected, kind):
    version = kind.STAGE_VERSION
    assert version in expected, f"write the numbers of {kind.STAGE}'s version {version} here"
    assert found == expected[version], f"the numbers of {kind.STAGE} moved: raise its STAGE_VERSION"


def test_numbers_of_data_are_unchanged(listing_path, val_listing_path):
    found = {}
    for split, path in (("train", listing_path), ("val", val_listing_path)):
        listing = read_listing(path, split)
        found[split] = [listing.digest, listing.index[:3].tolist(), listing.label[:3].tolist()]
    version_1 = {
        "train": ["9f7d66c3a09fd77f956ae1c935ae9aa2f1198c67de21d33ac4ec37a3d6b6e409", [226, 267, 576], [6, 5, 5]],
        "val": ["55427ad088b08b8e329bea4ef6f65d0f1243b29bb6697f0323e1416186189b84", [42, 50, 53], [3, 4, 8]],
    }
    # Version 2 keeps checksums of files.
    require(found, dict.fromkeys((1, 2), version_1), DataJob)


@pytest.mark.parametrize(
    ("views", "expected"),
    [("paper", {1: trained(2.15677, 3.62704, 0.003409)}), ("small", {1: trained(2.10644, 3.64675, 0.003021)})],
)
def test_numbers_of_teacher_are_unchanged(views, expected, listing_path, backbone, preprocessing, tmp_path):
    settings = {"method": "moco", "backbone": backbone.model_dump(), "head": {"dim": 16}, "queue_size": 40}
    settings |= {"training": {**TRAINING, "views": views}, "key_momentum": 0.9}
    files = {"listing": listing_path, "output": tmp_path / "teacher.safetensors", "training_log": tmp_path / "log.csv"}
    teacher = TrainedTeacher.model_validate(settings)
    job = run_stage(TeacherJob, preprocessing=preprocessing.network_input(), teacher=teacher, **files)
    require(training_numbers(job.training_log, job.output), expected, TeacherJob)


def test_numbers_of_embeddings_are_unchanged(listing_path, teacher_path, preprocessing, tmp_path):
    files = {"listing": listing_path, "teacher": teacher_path, "output": tmp_path / "embeddings.h5"}
    job = run_stage(EmbeddingsJob, preprocessing=preprocessing, **files)
    with h5py.File(job.output) as file:
        embedding = file["embedding"][:].astype(float)
    # Means, because the resizing of uint8 images differs by a grey level between CPUs.
    found = (*embedding[[0, 9, 63]].mean(1), embedding.std())
    version_1 = pytest.approx((0.51405, 0.68961, 0.36506, 0.77457), rel=3e-3)
    # Version 2 names its teacher by more than the weights.
    require(found, {1: version_1, 2: version_1}, EmbeddingsJob)


def test_numbers_of_bags_are_unchanged(listing_path, teacher_path, embeddings_path, tmp_path):
    settings = KnnBag(criterion="knn", teacher="t", size=3)
    made = grouped(settings, listing_path, teacher_path, embeddings_path, tmp_path)
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
    # Version 2 clusters block by block.
    require(found, dict.fromkeys((1, 2), version_1), BagsJob)


def grouped(settings, listing_path, teacher_path, embeddings_path, folder):
    files = {"listing": listing_path, "teacher": teacher_path, "embeddings": embeddings_path}
    return read_bags(run_stage(BagsJob, bags=settings, **files, output=folder / "bags.h5").output)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (LabelBag(criterion="label"), ([6, 5, 5, 5, 9, 0, 0, 5, 2], [32, 30, 16, 53, 22, 54], 1.0)),
        (
            RandomBag(criterion="random", size=3),
            ([14, 8, 4, 6, 15, 6, 2, 8, 5], [11, 18, 53, 5, 34, 13], pytest.approx(0.114583, rel=1e-5)),
        ),
    ],
    ids=["label", "random"],
)
def test_numbers_of_bags_without_a_teacher_are_unchanged(settings, expected, listing_path, tmp_path):
    made = grouped(settings, listing_path, None, None, tmp_path)
    found = (made.bag_of[:9].tolist(), made.draw(np.arange(6), seed=0, epoch=0).tolist(), made.attributes["purity"])
    require(found, dict.fromkeys((1, 2), expected), BagsJob)


def test_numbers_of_bags_of_clusters_are_unchanged(listing_path, teacher_path, embeddings_path, tmp_path):
    settings = KmeansBag(criterion="kmeans", teacher="t", clusters=6)
    made = grouped(settings, listing_path, teacher_path, embeddings_path, tmp_path)
    # Which image belongs to which cluster of noise depends on rounding; how near it is to the centroid, hardly.
    require(made.attributes["mean_similarity"], dict.fromkeys((1, 2), pytest.approx(0.5434, rel=2e-2)), BagsJob)


def write_targets(listing_path, teacher_path, preprocessing, path, layer="projection", number=0, views=3):
    """Store a layer of a teacher for some views."""
    settings = {"recipe": "small", "precision": "float32", "layer": layer, "number": number, "views": views}
    files = {"listing": listing_path, "teacher": teacher_path, "output": path}
    return run_stage(TargetsJob, preprocessing=preprocessing.network_input(), **settings, **files).output


def test_numbers_of_targets_are_unchanged(listing_path, teacher_path, preprocessing, tmp_path):
    parts, alike = [], []
    for layer in ("features", "projection"):
        for number in (0, 1):
            path = tmp_path / f"{layer}-{number}.h5"
            with h5py.File(write_targets(listing_path, teacher_path, preprocessing, path, layer, number)) as file:
                values = file["target"][:].astype(float)
            # A part of one unit vector of each file, and how alike the views of an image are.
            parts += values[9, 1, ::13][:2].tolist()
            alike.append(np.einsum("nvd,nwd->", values, values) / (len(values) * 9))
    version_1 = (0.090515, 0.024521, 0.092224, 0.015343, -0.015686, 0.279053, 0.038117, 0.351562)
    expected = {1: pytest.approx((*version_1, 0.987934, 0.988562, 0.984849, 0.987848), rel=3e-3)}
    require((*parts, *alike), expected, TargetsJob)


BINGO = {"method": "bingo", "bags": "b", "head": {"hidden": 32}}
COMPRESS = {"method": "compress", "teacher": "t", "temperature": 0.2, "training": STEADY}

# All students have one small network, two epochs and a short queue.
STUDENTS = {
    "moco": ({"method": "moco"}, (1.90434, 3.62999, 0.002156)),
    "bingo": (BINGO, (6.92006, 7.48026, 0.021535)),
    "bingo stored": ({**BINGO, "teacher_views": 1}, (6.85653, 7.47708, 0.022399)),
    "bingo official": ({**BINGO, "objective": "official", "inter_free_epochs": 1}, (3.46191, 3.71641, 0.010709)),
    "bingo batch": ({**BINGO, "teacher_batch_norm": "batch"}, (7.56711, 7.51844, 0.025969)),
    "seed": ({"method": "seed", "teacher": "t"}, (3.62521, 3.7629, 0.01557)),
    "disco": ({"method": "disco", "teacher": "t", "head": {"hidden": 32}}, (52.2722, 9.3501, 0.31742)),
    "compress 2q": (COMPRESS, (0.281566, 0.070318, 0.0022295)),
    "compress 1q": ({**COMPRESS, "variant": "1q"}, (0.403441, 0.0063971, 0.0053519)),
}


@pytest.mark.parametrize("name", STUDENTS)
def test_numbers_of_student_are_unchanged(
    name, listing_path, teacher_path, bags_path, backbone, preprocessing, tmp_path
):
    settings, expected = STUDENTS[name]
    settings = {"backbone": backbone.model_dump(), "training": TRAINING, "queue_size": 40, **settings}
    files = {"teacher": teacher_path, "listing": listing_path, "bags": bags_path, "output": tmp_path / "out"}
    if "teacher_views" in settings:
        settings["training"] = {**TRAINING, "views": "small"}
        path = write_targets(listing_path, teacher_path, preprocessing, tmp_path / "targets.h5", views=1)
        files |= {"teacher": None, "targets": [path]}
    student = TypeAdapter(Student).validate_python(settings)
    job = run_stage(StudentJob, preprocessing=preprocessing.network_input(), student=student, seed=1, **files)
    found = training_numbers(job.output / "log.csv", job.output / "backbone.safetensors")
    require(found, {2: trained(*expected)}, StudentJob)


@pytest.mark.parametrize(
    ("protocol", "expected"),
    [
        ("knn-1", dict.fromkeys((1, 2, 3), measured(top1=53.90625))),
        # Version 2 has top-5 where a vote has as many classes, version 3 a digest of its results.
        ("knn-10", {1: measured(top1=46.09375), **dict.fromkeys((2, 3), measured(top1=46.09375, top5=89.84375))}),
        ("linear-moco-small", dict.fromkeys((1, 2, 3), measured(top1=60.15625, top5=96.875))),
    ],
)
def test_numbers_of_evaluation_are_unchanged(
    protocol, expected, listing_path, val_listing_path, teacher_path, preprocessing, tmp_path
):
    settings = {"preprocessing": preprocessing, "model": "t", "protocol": protocol, "target": "", "seed": 0}
    files = {"listing": listing_path, "val_listing": val_listing_path, "weights": teacher_path}
    job = run_stage(EvaluationJob, **settings, **files, output=tmp_path / "result.json")
    metrics = json.loads(job.output.read_text())["metrics"]
    require(metrics, expected, EvaluationJob)
