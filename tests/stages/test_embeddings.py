import json
import shutil

import h5py
import numpy as np
import pytest
import torch

from bingo.artifacts.embeddings import open_embeddings
from bingo.artifacts.tensors import read_tensors, write_tensors
from bingo.errors import BingoError
from bingo.models.checkpoint import load_teacher
from bingo.stages import embeddings as stage
from bingo.study.jobs import EmbeddingsJob
from bingo.study.sections import Preprocessing
from bingo.training import embed as embedding
from bingo.training.embed import embed
from tests.stage import run_stage

from .conftest import CPU

PREPROCESSING = Preprocessing(size=16, resize=20)


@pytest.fixture(scope="module")
def demo(list_demo):
    return list_demo(21)


@pytest.fixture(scope="module")
def make(demo, teacher):
    """Run the stage: (output, other fields) -> its output."""

    def make(output, **fields):
        files = {"listing": demo.path, "teacher": teacher.path, "output": output}
        return run_stage(EmbeddingsJob, **{"preprocessing": PREPROCESSING, **files, **fields}).output

    return make


@pytest.fixture(scope="module")
def made(make, tmp_path_factory):
    return make(tmp_path_factory.mktemp("made") / "embeddings.h5")


@pytest.fixture
def read(demo, teacher):
    """Read the features of a file: (path, listing, path of the teacher) -> (N, D)."""

    def read(path, demo=demo, teacher_path=teacher.path):
        with open_embeddings(path, demo.path, demo.listing.digest, len(demo.listing), teacher_path) as found:
            return found.features[:]

    return read


def test_the_file_holds_features_positions_and_labels_of_every_image(made, read, teacher, demo):
    features = torch.cat(list(embed(teacher.backbone, demo.images, PREPROCESSING, CPU, 0, "bilinear")))
    with h5py.File(made) as file:
        assert set(file) == {"embedding", "index", "label"}
        assert file["embedding"].dtype == np.float16
        assert file["index"].dtype == file["label"].dtype == np.int64
        assert file["embedding"].chunks[1] == teacher.backbone.dim  # whole rows
        assert all(file[name].fletcher32 for name in file)
        np.testing.assert_allclose(file["embedding"][:], features, rtol=2e-3, atol=1e-3)
        np.testing.assert_array_equal(file["index"][:], np.arange(21))
        np.testing.assert_array_equal(file["label"][:], demo.listing.label)
        np.testing.assert_array_equal(read(made), file["embedding"][:])


def test_the_file_names_the_dataset_the_teacher_and_the_preprocessing(made, teacher, demo):
    with h5py.File(made) as file:
        attributes = dict(file.attrs)
    digest = load_teacher(teacher.path, CPU).digest
    assert (attributes["dataset_digest"], attributes["teacher_digest"]) == (demo.listing.digest, digest)
    assert attributes["layer"] == "pooled backbone output"
    assert json.loads(attributes["preprocessing"]) == PREPROCESSING.model_dump()
    provenance = json.loads(attributes["provenance"])
    assert (provenance["stage"], provenance["version"]) == ("embeddings", EmbeddingsJob.STAGE_VERSION)
    assert provenance["inputs"] == {"dataset": demo.listing.digest, "teacher": digest}


def test_loader_workers_change_no_byte_and_the_batch_no_more_than_rounding(make, made, read, tmp_path, monkeypatch):
    monkeypatch.setattr(embedding, "EMBED_BATCH", 8)
    alone, helped = (make(tmp_path / f"{workers}.h5", workers=workers) for workers in (0, 2))
    assert alone.read_bytes() == helped.read_bytes()
    np.testing.assert_allclose(read(alone), read(made), rtol=2e-3, atol=1e-3)  # a step of float16


@pytest.fixture
def shards(make, tmp_path, monkeypatch):
    """Make the shards of embeddings in batches of 4: their number -> paths."""
    for module in (embedding, stage):
        monkeypatch.setattr(module, "EMBED_BATCH", 4)

    def shards(parts):
        paths = [tmp_path / f"{number}-of-{parts}.h5" for number in range(1, parts + 1)]
        return [make(path, part=path.stem) for path in paths]

    return shards


@pytest.mark.parametrize("parts", [1, 5, 9])
def test_shards_give_the_bytes_of_a_single_job(parts, shards, make, tmp_path):
    gathered = make(tmp_path / "gathered.h5", shards=shards(parts)[::-1])
    assert gathered.read_bytes() == make(tmp_path / "alone.h5").read_bytes()


def test_provenance_names_the_devices_that_computed_shards(shards, make, tmp_path, monkeypatch):
    names = iter("AAB")
    monkeypatch.setattr(stage, "describe_device", lambda _: {"device": "cuda", "hardware": next(names)})
    with h5py.File(make(tmp_path / "gathered.h5", shards=shards(3))) as file:
        provenance = json.loads(file.attrs["provenance"])
    assert (provenance["device"], provenance["hardware"]) == ("cuda", "A, B")


def test_shards_that_do_not_fit_are_refused(shards, make, make_teacher, tmp_path):
    paths, output = shards(3), tmp_path / "out.h5"
    with pytest.raises(BingoError, match=f"^{paths[0]}: "):
        make(output, teacher=make_teacher(1).path, shards=paths)
    with pytest.raises(BingoError, match=f"^{paths[2]}: "):
        make(output, shards=[paths[0], paths[2]])
    flip_a_bit(paths[0])
    with pytest.raises(BingoError, match=f"^{paths[0]}: "):
        make(output, shards=paths)
    assert not output.exists()


def flip_a_bit(path):
    with h5py.File(path) as file:
        start = file["embedding"].id.get_chunk_info(0).byte_offset
    damaged = bytearray(path.read_bytes())
    damaged[start + 9] ^= 4
    path.write_bytes(damaged)


def test_a_teacher_that_cannot_embed_these_images_is_refused(make, make_teacher, transformer, tmp_path):
    overflowing = make_teacher(0, scale=1e8).path
    with pytest.raises(BingoError, match=f"^{overflowing}: .*float16"):
        make(tmp_path / "embeddings.h5", teacher=overflowing)
    with pytest.raises(BingoError, match=r"^backbone: .*data\.preprocessing\.size"):
        make(tmp_path / "embeddings.h5", teacher=transformer)
    assert not list(tmp_path.iterdir())


def test_embeddings_of_another_dataset_or_teacher_are_refused(made, read, list_demo, make_teacher, teacher, tmp_path):
    with pytest.raises(BingoError, match=f"^{made}: .*dataset"):
        read(made, demo=list_demo(20))
    with pytest.raises(BingoError, match=f"^{made}: .*teacher"):
        read(made, teacher_path=make_teacher(1).path)
    tensors, metadata = read_tensors(teacher.path)
    other = tmp_path / "other.safetensors"
    write_tensors(other, tensors, {**metadata, "backbone": {**metadata["backbone"], "stem": "imagenet"}})
    with pytest.raises(BingoError, match=f"^{made}: .*teacher"):
        read(made, teacher_path=other)
    write_tensors(other, tensors, {**metadata, "method": "imported"})  # which changes no feature
    assert len(read(made, teacher_path=other)) == 21


def test_damaged_embeddings_and_rows_in_another_order_are_refused(made, read, tmp_path):
    path = shutil.copy(made, tmp_path / "embeddings.h5")
    with h5py.File(path, "r+") as file:
        file["index"][:] = file["index"][:][::-1]
    with pytest.raises(BingoError, match=f"^{path}: "):
        read(path)
    flip_a_bit(shutil.copy(made, path))
    with pytest.raises(BingoError, match=f"^{path}: "):
        read(path)
