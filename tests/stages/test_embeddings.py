import json
import shutil

import h5py
import numpy as np
import pytest
import torch

from bingo.artifacts.embeddings import Embeddings, open_embeddings
from bingo.artifacts.tensors import read_tensors, write_tensors
from bingo.errors import BingoError
from bingo.models.checkpoint import load_teacher
from bingo.stages import embeddings as stage
from bingo.study.jobs import EmbeddingsJob
from bingo.study.sections import Preprocessing
from bingo.training import embed as embedding
from bingo.training.embed import embed
from tests.stage import run_stage

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def preprocessing():
    return Preprocessing(size=16, resize=20)


@pytest.fixture(scope="module")
def demo(list_demo):
    return list_demo(21)


@pytest.fixture(scope="module")
def make(demo, preprocessing):
    """Run the stage."""

    def make(teacher_path, output, **fields):
        files = {"listing": demo.path, "teacher": teacher_path, "output": output}
        return run_stage(EmbeddingsJob, preprocessing=preprocessing, **files, **fields).output

    return make


@pytest.fixture(scope="module")
def teacher_path(make_teacher):
    return make_teacher(0).path


@pytest.fixture(scope="module")
def made(make, teacher_path, tmp_path_factory):
    return make(teacher_path, tmp_path_factory.mktemp("made") / "embeddings.h5")


@pytest.fixture
def path(made, tmp_path):
    """A copy of the embeddings to tamper with."""
    return shutil.copy(made, tmp_path / "embeddings.h5")


@pytest.fixture
def read(demo, teacher_path):
    """Read all of a file."""
    return lambda path: read_all(path, demo.path, demo.listing, teacher_path)


def read_all(path, listing_path, listing, teacher_path):
    with open_embeddings(path, listing_path, listing.digest, len(listing), teacher_path) as found:
        return Embeddings(found.features[:], found.teacher_digest, found.digest)


def refusal(call, *args):
    with pytest.raises(BingoError) as caught:
        call(*args)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_the_file_holds_features_positions_and_labels_of_every_image(made, teacher_path, demo, preprocessing):
    teacher = load_teacher(teacher_path, CPU)
    features = torch.cat(list(embed(teacher.backbone, demo.images, preprocessing, CPU, 0, "bilinear")))
    with h5py.File(made) as file:
        assert set(file) == {"embedding", "index", "label"}
        assert file["embedding"].dtype == np.float16
        assert file["index"].dtype == file["label"].dtype == np.int64
        assert file["embedding"].chunks[1] == teacher.backbone.dim  # whole rows
        assert all(file[name].fletcher32 for name in file)
        np.testing.assert_allclose(file["embedding"][:], features, rtol=2e-3, atol=1e-3)
        np.testing.assert_array_equal(file["index"][:], np.arange(21))
        np.testing.assert_array_equal(file["label"][:], demo.listing.label)


def test_the_file_says_what_it_was_made_of(made, teacher_path, demo, preprocessing):
    with h5py.File(made) as file:
        attributes = dict(file.attrs)
    digest = load_teacher(teacher_path, CPU).digest
    assert attributes["dataset_digest"] == demo.listing.digest
    assert attributes["teacher_digest"] == digest
    assert attributes["layer"] == "pooled backbone output"
    assert json.loads(attributes["preprocessing"]) == preprocessing.model_dump()
    provenance = json.loads(attributes["provenance"])
    assert (provenance["stage"], provenance["version"]) == ("embeddings", EmbeddingsJob.STAGE_VERSION)
    assert provenance["inputs"] == {"dataset": demo.listing.digest, "teacher": digest}


def test_loader_workers_change_no_byte_of_the_file(make, teacher_path, tmp_path, monkeypatch):
    monkeypatch.setattr(embedding, "EMBED_BATCH", 8)
    alone, helped = (make(teacher_path, tmp_path / f"{workers}.h5", workers=workers) for workers in (0, 2))
    assert alone.read_bytes() == helped.read_bytes()


def test_the_batch_changes_no_more_than_rounding(make, made, read, teacher_path, tmp_path, monkeypatch):
    monkeypatch.setattr(embedding, "EMBED_BATCH", 4)
    small = make(teacher_path, tmp_path / "small.h5")
    np.testing.assert_allclose(read(small).features, read(made).features, rtol=2e-3, atol=1e-3)  # a step of float16


@pytest.fixture
def shards(make, teacher_path, tmp_path, monkeypatch):
    """Make the shards of embeddings in batches of 4, so many."""
    for module in (embedding, stage):
        monkeypatch.setattr(module, "EMBED_BATCH", 4)

    def shards(parts):
        paths = [tmp_path / f"{number}-of-{parts}.h5" for number in range(1, parts + 1)]
        return [make(teacher_path, path, part=path.stem) for path in paths]

    return shards


@pytest.mark.parametrize("parts", [1, 2, 5, 9])
def test_shards_give_the_bytes_of_a_single_job(parts, shards, make, teacher_path, tmp_path):
    gathered = make(teacher_path, tmp_path / "gathered.h5", shards=shards(parts)[::-1])
    assert gathered.read_bytes() == make(teacher_path, tmp_path / "alone.h5").read_bytes()


def test_provenance_names_whatever_computed_shards_and_not_what_gathers_them(
    shards, make, teacher_path, tmp_path, monkeypatch
):
    paths = []
    for number, name in enumerate("AAB"):
        monkeypatch.setattr(stage, "describe_device", lambda _, name=name: {"device": "cuda", "hardware": name})
        path = tmp_path / f"{number}.h5"
        shutil.copy(shards(3)[number], path)
        paths.append(path)
    monkeypatch.undo()
    with h5py.File(make(teacher_path, tmp_path / "gathered.h5", shards=paths)) as file:
        provenance = json.loads(file.attrs["provenance"])
    assert (provenance["device"], provenance["hardware"]) == ("cuda", "A, B")


def test_shards_of_another_teacher_or_not_all_of_them_are_refused(shards, make, make_teacher, teacher_path, tmp_path):
    paths = shards(3)
    message = refusal(lambda: make(make_teacher(1).path, tmp_path / "out.h5", shards=paths))
    assert message == f"{paths[0]}: was made with other settings or inputs; delete it and run again"
    message = refusal(lambda: make(teacher_path, tmp_path / "out.h5", shards=[paths[0], paths[2]]))
    assert message == f"{paths[2]}: begins with row 16 where 8 is needed; name all shards"
    assert not (tmp_path / "out.h5").exists()


def test_a_damaged_shard_is_refused(shards, make, teacher_path, tmp_path):
    paths = shards(2)
    with h5py.File(paths[0]) as file:
        start = file["embedding"].id.get_chunk_info(0).byte_offset
    damaged = bytearray(paths[0].read_bytes())
    damaged[start + 9] ^= 4
    paths[0].write_bytes(damaged)
    message = refusal(lambda: make(teacher_path, tmp_path / "out.h5", shards=paths))
    assert message.startswith(f"{paths[0]}: truncated or damaged")
    assert not (tmp_path / "out.h5").exists()


def test_embeddings_are_read_as_they_are_stored(made, read, teacher_path):
    found = read(made)
    with h5py.File(made) as file:
        np.testing.assert_array_equal(found.features, file["embedding"][:])
        assert found.digest == file.attrs["digest"]
    assert found.teacher_digest == load_teacher(teacher_path, CPU).digest


def test_equal_inputs_give_equal_bytes_and_another_teacher_another_digest(make, made, make_teacher, tmp_path):
    assert make(make_teacher(0).path, tmp_path / "again.h5").read_bytes() == made.read_bytes()
    digests = set()
    for path in (made, make(make_teacher(1).path, tmp_path / "other.h5")):
        with h5py.File(path) as file:
            digests.add(file.attrs["digest"])
    assert len(digests) == 2


def test_features_beyond_float16_name_the_teacher_and_leave_no_file(make, make_teacher, tmp_path):
    teacher_path = make_teacher(0, scale=1e8).path
    message = refusal(make, teacher_path, tmp_path / "embeddings.h5")
    assert message.startswith(f"{teacher_path}: ")
    assert "float16" in message
    assert not list(tmp_path.iterdir())


def test_a_teacher_that_cannot_take_images_of_the_size_is_refused_and_leaves_no_file(make, transformer, tmp_path):
    message = refusal(make, transformer, tmp_path / "embeddings.h5")
    assert message.startswith("backbone: cannot take images of 16 px (")
    assert message.endswith("); set data.preprocessing.size")
    assert not list(tmp_path.iterdir())


def test_embeddings_of_another_dataset_are_refused(made, list_demo, teacher_path):
    other = list_demo(20)
    message = refusal(read_all, made, other.path, other.listing, teacher_path)
    assert message.startswith(f"{made}: belongs to another dataset")


def test_embeddings_of_another_teacher_are_refused(made, demo, make_teacher):
    message = refusal(read_all, made, demo.path, demo.listing, make_teacher(1).path)
    assert message.startswith(f"{made}: belongs to another teacher")


def test_embeddings_of_a_network_of_the_same_weights_but_another_kind_are_refused(made, demo, teacher_path, tmp_path):
    tensors, metadata = read_tensors(teacher_path)
    other = tmp_path / "other.safetensors"
    write_tensors(other, tensors, {**metadata, "backbone": {**metadata["backbone"], "stem": "imagenet"}})
    message = refusal(read_all, made, demo.path, demo.listing, other)
    assert message.startswith(f"{made}: belongs to another teacher")
    write_tensors(other, tensors, {**metadata, "method": "imported"})  # what changes no feature
    assert len(read_all(made, demo.path, demo.listing, other).features) == 21


def test_rows_in_another_order_are_refused(path, read):
    with h5py.File(path, "r+") as file:
        file["index"][:] = file["index"][:][::-1]
    assert f"{path}: rows are not those" in refusal(read, path)


def test_a_flipped_byte_of_a_feature_is_refused(path, read):
    with h5py.File(path) as file:
        start = file["embedding"].id.get_chunk_info(0).byte_offset
    damaged = bytearray(path.read_bytes())
    damaged[start + 100] ^= 4
    path.write_bytes(damaged)
    assert f"{path}: truncated or damaged" in refusal(read, path)


@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_a_truncated_file_is_refused(share, path, read):
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    assert str(path) in refusal(read, path)
