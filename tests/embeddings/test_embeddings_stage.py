import json

import h5py
import numpy as np
import pytest
import torch

from bingo.config import DemoData
from bingo.data.listing import read_listing, write_listing
from bingo.embeddings import embeddings as module
from bingo.embeddings.embeddings import embed, read_embeddings
from bingo.embeddings.stage import make_embeddings
from bingo.errors import BingoError
from bingo.jobs import DataJob, EmbeddingsJob
from bingo.models.checkpoint import load_teacher
from bingo.tensors import read_metadata

CPU = torch.device("cpu")


@pytest.fixture
def make(demo, preprocessing, tmp_path):
    """Run the stage with a teacher and return the path of its file."""

    def make(teacher_path, name="embeddings.h5", workers=0):
        job = EmbeddingsJob(version=1, preprocessing=preprocessing)
        make_embeddings(job, demo.path, teacher_path, tmp_path / name, CPU, workers)
        return tmp_path / name

    return make


def refusal(call, *args):
    with pytest.raises(BingoError) as caught:
        call(*args)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_the_file_holds_features_projections_positions_and_labels_of_every_image(
    make, write_teacher, demo, preprocessing
):
    teacher_path = write_teacher("teacher.safetensors")
    teacher = load_teacher(teacher_path, CPU)
    features = torch.cat(list(embed(teacher.backbone, demo.images, preprocessing, CPU, 0)))
    with h5py.File(make(teacher_path)) as file:
        assert set(file) == {"embedding", "projection", "index", "label"}
        assert file["embedding"].dtype == file["projection"].dtype == np.float16
        assert file["index"].dtype == file["label"].dtype == np.int64
        assert file["embedding"].chunks[1] == teacher.backbone.dim  # whole rows
        assert all(file[name].fletcher32 for name in file)
        np.testing.assert_allclose(file["embedding"][:], features, rtol=2e-3, atol=1e-3)
        np.testing.assert_allclose(file["projection"][:], teacher.head(features), rtol=2e-3, atol=1e-3)
        np.testing.assert_array_equal(file["index"][:], np.arange(21))
        np.testing.assert_array_equal(file["label"][:], demo.listing.label)


def test_the_file_says_what_it_was_made_of(make, write_teacher, demo, preprocessing):
    teacher_path = write_teacher("teacher.safetensors")
    with h5py.File(make(teacher_path)) as file:
        attributes = dict(file.attrs)
    digest = read_metadata(teacher_path)["digest"]
    assert attributes["dataset_digest"] == demo.listing.digest
    assert attributes["teacher_digest"] == digest
    assert attributes["layer"] == "pooled backbone output"
    assert json.loads(attributes["preprocessing"]) == preprocessing.model_dump()
    provenance = json.loads(attributes["provenance"])
    assert (provenance["stage"], provenance["version"]) == ("embeddings", 1)
    assert provenance["inputs"] == {"dataset": demo.listing.digest, "teacher": digest}


def test_loader_workers_change_no_byte_of_the_file(make, write_teacher, monkeypatch):
    monkeypatch.setattr(module, "_BATCH", 8)
    teacher_path = write_teacher("teacher.safetensors")
    assert make(teacher_path, "0.h5").read_bytes() == make(teacher_path, "2.h5", workers=2).read_bytes()


def test_the_batch_changes_no_more_than_rounding(make, write_teacher, demo, monkeypatch):
    teacher_path = write_teacher("teacher.safetensors")
    found = []
    for batch in (256, 4):
        monkeypatch.setattr(module, "_BATCH", batch)
        found.append(read_embeddings(make(teacher_path), demo.path, demo.listing, teacher_path).features)
    np.testing.assert_allclose(*found, rtol=2e-3, atol=1e-3)  # one step of float16


def test_embeddings_are_read_as_float32(make, write_teacher, demo):
    teacher_path = write_teacher("teacher.safetensors")
    path = make(teacher_path)
    found = read_embeddings(path, demo.path, demo.listing, teacher_path)
    with h5py.File(path) as file:
        np.testing.assert_array_equal(found.features, file["embedding"][:].astype(np.float32))
        assert found.digest == file.attrs["digest"]
    assert found.features.dtype == np.float32
    assert found.teacher_digest == read_metadata(teacher_path)["digest"]


def test_the_digest_is_that_of_the_numbers(make, write_teacher, demo):
    def digest(teacher_path):
        return read_embeddings(make(teacher_path), demo.path, demo.listing, teacher_path).digest

    first, same, other = (digest(write_teacher(f"{i}.safetensors", seed)) for i, seed in enumerate((0, 0, 1)))
    assert first == same != other


def test_features_beyond_float16_name_the_teacher_and_leave_no_file(make, write_teacher, tmp_path):
    teacher_path = write_teacher("teacher.safetensors", scale=1e8)
    message = refusal(make, teacher_path)
    assert message.startswith(f"{teacher_path}: ")
    assert "float16" in message
    assert [path.name for path in tmp_path.iterdir()] == [teacher_path.name]


def test_embeddings_of_another_dataset_or_teacher_are_refused(make, write_teacher, demo, tmp_path):
    teacher_path, other_teacher = write_teacher("teacher.safetensors"), write_teacher("other.safetensors", seed=1)
    path = make(teacher_path)
    other = tmp_path / "other.h5"
    write_listing(DataJob(version=1, data=DemoData(source="demo", max_train=20, max_val=5)), other, 1)
    listing = read_listing(other, "train")
    assert f"{path}: belongs to another dataset" in refusal(read_embeddings, path, other, listing, teacher_path)
    message = refusal(read_embeddings, path, demo.path, demo.listing, other_teacher)
    assert f"{path}: belongs to another teacher" in message


def test_rows_in_another_order_are_refused(make, write_teacher, demo):
    teacher_path = write_teacher("teacher.safetensors")
    path = make(teacher_path)
    with h5py.File(path, "r+") as file:
        file["index"][:] = file["index"][:][::-1]
    assert f"{path}: rows are not those" in refusal(read_embeddings, path, demo.path, demo.listing, teacher_path)


def test_a_flipped_byte_of_a_feature_is_refused(make, write_teacher, demo):
    teacher_path = write_teacher("teacher.safetensors")
    path = make(teacher_path)
    with h5py.File(path) as file:
        start = file["embedding"].id.get_chunk_info(0).byte_offset
    damaged = bytearray(path.read_bytes())
    damaged[start + 100] ^= 4
    path.write_bytes(damaged)
    message = refusal(read_embeddings, path, demo.path, demo.listing, teacher_path)
    assert f"{path}: truncated or damaged" in message


@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_a_truncated_file_is_refused(share, make, write_teacher, demo):
    teacher_path = write_teacher("teacher.safetensors")
    path = make(teacher_path)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    assert str(path) in refusal(read_embeddings, path, demo.path, demo.listing, teacher_path)
