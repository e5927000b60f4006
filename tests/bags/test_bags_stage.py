import json
import logging

import h5py
import numpy as np
import pytest
import torch

from bingo.bags.bags import read_bags
from bingo.bags.stage import make_bags, make_sheet
from bingo.config import Bingo, KnnBag, Preprocessing
from bingo.data.listing import read_listing
from bingo.errors import BingoError
from bingo.jobs import BagsJob, StudentJob
from bingo.student.stage import train_student
from bingo.tensors import read_tensors


def job(size):
    return BagsJob(version=1, bags=KnnBag(criterion="knn", teacher="teacher", size=size))


@pytest.fixture(scope="module")
def bags_path(inputs, tmp_path_factory):
    path = tmp_path_factory.mktemp("bags") / "bags.h5"
    make_bags(job(4), output=path, **inputs)
    return path


def refusal(call, *args, **kwargs):
    with pytest.raises(BingoError) as caught:
        call(*args, **kwargs)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_bags_are_the_neighbours_of_the_embeddings(inputs, bags_path):
    with h5py.File(inputs["embeddings_path"]) as file:
        features = file["embedding"][:].astype(np.float64)
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    similarity = features @ features.T
    np.fill_diagonal(similarity, -np.inf)
    bags = read_bags(bags_path)
    assert (np.diff(bags.indptr) == 4).all()
    expected = -np.sort(-similarity, axis=1)[:, :4]
    np.testing.assert_allclose(bags.similarity.reshape(-1, 4), expected, atol=1e-6)
    np.testing.assert_allclose(np.take_along_axis(similarity, bags.members.reshape(-1, 4), 1), expected, atol=1e-6)


def test_bags_say_what_they_were_made_of_and_how_good_they_are(inputs, bags_path):
    bags, listing = read_bags(bags_path), read_listing(inputs["listing_path"], "train")
    teacher_digest = read_tensors(inputs["teacher_path"])[1]["digest"]
    with h5py.File(inputs["embeddings_path"]) as file:
        embeddings_digest = file.attrs["digest"]
    attributes = bags.attributes
    assert attributes["dataset_digest"] == listing.digest
    assert attributes["teacher_digest"] == teacher_digest
    assert attributes["criterion"] == "knn"
    assert attributes["provenance"]["stage"] == "bags"
    assert attributes["provenance"]["settings"] == json.loads(job(4).model_dump_json())
    expected = {"dataset": listing.digest, "teacher": teacher_digest, "embeddings": embeddings_digest}
    assert attributes["provenance"]["inputs"] == expected
    assert attributes["mean_similarity"] == pytest.approx(float(bags.similarity.mean()))
    same = listing.label[bags.members.reshape(-1, 4)] == listing.label[:, None]
    assert attributes["purity"] == pytest.approx(same.mean())


def test_equal_inputs_give_equal_bytes(inputs, bags_path, tmp_path):
    make_bags(job(4), output=tmp_path / "again.h5", **inputs)
    assert (tmp_path / "again.h5").read_bytes() == bags_path.read_bytes()


def test_purity_is_logged(inputs, tmp_path, caplog):
    with caplog.at_level(logging.INFO):
        make_bags(job(2), output=tmp_path / "bags.h5", **inputs)
    assert f"purity: {read_bags(tmp_path / 'bags.h5').attributes['purity']:.4f}" in caplog.text


def test_a_size_that_the_dataset_does_not_allow_is_refused_and_leaves_no_file(inputs, tmp_path):
    assert "size 40" in refusal(make_bags, job(40), output=tmp_path / "bags.h5", **inputs)
    assert not list(tmp_path.iterdir())


def test_embeddings_of_another_dataset_are_refused(inputs, make_listing, tmp_path):
    changed = inputs | {"listing_path": make_listing(39)}
    message = refusal(make_bags, job(4), output=tmp_path / "bags.h5", **changed)
    assert message.startswith(f"{inputs['embeddings_path']}: belongs to another dataset")
    assert str(changed["listing_path"]) in message
    assert not list(tmp_path.iterdir())


def test_embeddings_of_another_teacher_are_refused(inputs, make_teacher, tmp_path):
    changed = inputs | {"teacher_path": make_teacher(1)}
    message = refusal(make_bags, job(4), output=tmp_path / "bags.h5", **changed)
    assert message.startswith(f"{inputs['embeddings_path']}: belongs to another teacher")
    assert str(changed["teacher_path"]) in message


def test_a_sheet_of_bags_of_another_dataset_is_refused(bags_path, make_listing, tmp_path):
    message = refusal(make_sheet, make_listing(39), bags_path, tmp_path / "sheet.png")
    assert message.startswith(f"{bags_path}: belongs to another dataset")
    assert not list(tmp_path.iterdir())


@pytest.fixture
def train(inputs, bags_path, tmp_path):
    """Train a student; inputs may be exchanged."""
    student = Bingo.model_validate(
        {
            "method": "bingo",
            "bags": "knn",
            "backbone": {"architecture": "resnet10", "stem": "small", "width": 1 / 64},
            "head": {"hidden": 8},
            "training": {"epochs": 1, "batch_size": 20, "views": "small", "precision": "float32"},
            "queue_size": 16,
        }
    )
    student_job = StudentJob(version=1, preprocessing=Preprocessing(size=16, resize=16), student=student, seed=0)

    def train(**changes):
        files = {"listing_path": inputs["listing_path"], "teacher_path": inputs["teacher_path"], "bags_path": bags_path}
        train_student(student_job, "s", output=tmp_path, device=torch.device("cpu"), workers=0, **files | changes)

    return train


def test_a_student_takes_the_bags_of_its_dataset_and_teacher(train, bags_path, tmp_path):
    train()
    provenance = read_tensors(tmp_path / "backbone.safetensors")[1]["provenance"]
    assert provenance["inputs"]["bags"] == read_bags(bags_path).attributes["digest"]


def test_a_student_refuses_bags_of_another_dataset(train, bags_path, make_listing):
    message = refusal(train, listing_path=make_listing(39))
    assert message.startswith(f"{bags_path}: belongs to another dataset")


def test_a_student_refuses_bags_of_another_teacher(train, bags_path, make_teacher):
    message = refusal(train, teacher_path=make_teacher(1))
    assert message.startswith(f"{bags_path}: belongs to another teacher")


def test_a_student_refuses_damaged_bags(train, bags_path, tmp_path):
    path = tmp_path / "damaged.h5"
    path.write_bytes(bags_path.read_bytes()[:-1])
    assert str(path) in refusal(train, bags_path=path)
