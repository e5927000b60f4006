import logging

import h5py
import numpy as np
import pytest
from PIL import Image
from pydantic import TypeAdapter

from bingo.artifacts.tensors import network_digest, read_metadata
from bingo.bags import neighbours
from bingo.bags.bags import read_bags
from bingo.errors import BingoError
from bingo.stages import bags as stage
from bingo.study.bags import Bag
from bingo.study.images import FolderData
from bingo.study.jobs import BagsJob, EmbeddingsJob
from bingo.study.sections import Preprocessing
from tests.stage import run_stage

CRITERIA = {
    "knn": {"teacher": "teacher", "size": 4},
    "kmeans": {"teacher": "teacher", "clusters": 6, "seed": 1},
    "label": {},
    "random": {"size": 4, "seed": 1},
}
NEED_FEATURES = ("knn", "kmeans")


@pytest.fixture(scope="module")
def listed(list_demo):
    return list_demo(40)


@pytest.fixture(scope="module")
def inputs(listed, teacher, tmp_path_factory):
    """Listing, teacher and embeddings that belong together."""
    given = {"listing": listed.path, "teacher": teacher.path}
    embeddings = tmp_path_factory.mktemp("embeddings") / "teacher.h5"
    run_stage(EmbeddingsJob, preprocessing=Preprocessing(size=16, resize=16), **given, output=embeddings)
    return {**given, "embeddings": embeddings}


@pytest.fixture
def make(inputs, tmp_path):
    """Run the stage: (criterion, its settings, other files) -> its job."""

    def make(criterion="knn", settings=None, **files):
        bags = TypeAdapter(Bag).validate_python({"criterion": criterion} | CRITERIA[criterion] | (settings or {}))
        unused = {} if criterion in NEED_FEATURES else {"teacher": None, "embeddings": None}
        return run_stage(BagsJob, bags=bags, **{"output": tmp_path / "bags.h5", **inputs, **unused, **files})

    return make


def made(job):
    return read_bags(job.output)


def test_bags_are_the_neighbours_of_the_embeddings(make, inputs, listed):
    with h5py.File(inputs["embeddings"]) as file:
        features = file["embedding"][:].astype(np.float64)
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    similarity = features @ features.T
    np.fill_diagonal(similarity, -np.inf)
    bags = made(make())
    members = bags.members.reshape(-1, 4)
    expected = -np.sort(-similarity, axis=1)[:, :4]
    np.testing.assert_allclose(bags.similarity.reshape(-1, 4), expected, atol=1e-6)
    np.testing.assert_allclose(np.take_along_axis(similarity, members, 1), expected, atol=1e-6)
    same = listed.listing.label[members] == listed.listing.label[:, None]
    assert bags.attributes["purity"] == pytest.approx(same.mean())
    assert bags.attributes["mean_similarity"] == pytest.approx(expected.mean(), abs=1e-6)


@pytest.mark.parametrize("criterion", CRITERIA)
def test_bags_carry_their_origin_and_their_quality(criterion, make, inputs, listed, tmp_path, caplog):
    with caplog.at_level(logging.INFO):
        job = make(criterion)
    bags = made(job)
    attributes, sizes = bags.attributes, np.diff(bags.indptr)
    assert attributes["criterion"] == criterion
    assert attributes["provenance"]["stage"] == "bags"
    assert attributes["provenance"]["settings"] == job.settings
    assert attributes["purity"] == pytest.approx(bags.purity(listed.listing.label))
    assert f"{attributes['purity']:.4f}" in caplog.text
    assert attributes["bags"] == len(sizes)
    found = [attributes[name] for name in ("smallest", "median", "largest")]
    assert found == [min(sizes), np.median(sizes), max(sizes)]
    expected = {"dataset": listed.listing.digest}
    if criterion in NEED_FEATURES:
        with h5py.File(inputs["embeddings"]) as file:
            expected["embeddings"] = file.attrs["digest"]
        expected["teacher"] = network_digest(read_metadata(inputs["teacher"]))
    assert attributes["provenance"]["inputs"] == expected
    assert (attributes["dataset_digest"], attributes.get("teacher_digest")) == (
        expected["dataset"],
        expected.get("teacher"),
    )
    assert ("mean_similarity" in attributes) == (criterion in NEED_FEATURES)
    assert make(criterion, output=tmp_path / "again.h5").output.read_bytes() == job.output.read_bytes()


def test_settings_reach_the_bags(make, listed):
    assert made(make("kmeans", {"clusters": 1})).attributes["largest"] == 40
    assert 2 <= made(make("kmeans", {"clusters": 9})).attributes["bags"] <= 9
    assert made(make("random", {"size": 19})).attributes["bags"] == 2
    for criterion in ("kmeans", "random"):
        first, second = (made(make(criterion, {"seed": seed})) for seed in (1, 2))
        assert (first.bag_of != second.bag_of).any()
    short, long = (made(make("kmeans", {"iterations": rounds})).attributes["mean_similarity"] for rounds in (1, 20))
    assert short < long
    assert made(make("label")).attributes["bags"] == len(set(listed.listing.label))


@pytest.mark.parametrize(
    ("criterion", "setting", "most", "sizes"),
    [("knn", "size", 39, (40, 39, 39)), ("kmeans", "clusters", 40, (40, 1, 1)), ("random", "size", 39, (1, 40, 40))],
)
def test_bags_are_limited_by_the_number_of_images(criterion, setting, most, sizes, make):
    job = make(criterion, {setting: most})
    assert tuple(made(job).attributes[name] for name in ("bags", "smallest", "largest")) == sizes
    job.output.unlink()
    with pytest.raises(BingoError, match=rf"^bags: {setting} {most + 1} .*\b40\b"):
        make(criterion, {setting: most + 1})
    assert not job.output.exists()


@pytest.mark.parametrize("missing", ["teacher", "embeddings"])
def test_neighbours_need_a_teacher_and_its_embeddings(missing, make):
    with pytest.raises(BingoError, match=r"^bags: .*knn.*--teacher.*--embeddings"):
        make(**{missing: None})


def test_images_without_labels_have_random_bags_but_no_label_bags(make, write_listings, tmp_path):
    (tmp_path / "images").mkdir()
    for number in range(6):
        Image.fromarray(np.full((8, 8, 3), 40 * number, dtype=np.uint8)).save(tmp_path / "images" / f"{number}.png")
    data = FolderData(source="folder", train=str(tmp_path / "images"), labels="none")
    listing, _ = write_listings(tmp_path, data)
    with pytest.raises(BingoError, match=r"^bags: .*label"):
        make("label", listing=listing)
    assert "purity" not in made(make("random", {"size": 1}, listing=listing)).attributes


@pytest.fixture
def shards(make, tmp_path, monkeypatch):
    """Make the shards of knn bags: (their number, settings) -> paths."""
    for module in (neighbours, stage):
        monkeypatch.setattr(module, "QUERY_BLOCK", 8)

    def shards(parts, settings=None):
        paths = [tmp_path / f"{number}-of-{parts}.h5" for number in range(1, parts + 1)]
        return [make("knn", settings, output=path, part=path.stem).output for path in paths]

    return shards


@pytest.mark.parametrize(
    ("search", "parts"), [("exact", 1), ("exact", 2), ("exact", 7), ({"ivf": {"lists": 6, "probes": 2}}, 3)]
)
def test_shards_give_the_bytes_of_a_single_job(search, parts, shards, make, tmp_path):
    alone = make("knn", {"search": search}).output.read_bytes()
    paths = shards(parts, {"search": search})
    gathered = make("knn", {"search": search}, output=tmp_path / "gathered.h5", shards=paths[::-1])
    assert gathered.output.read_bytes() == alone


def test_shards_that_do_not_fit_are_refused(shards, make, tmp_path):
    paths = shards(2)
    with pytest.raises(BingoError, match=f"^{paths[0]}: "):
        make("knn", {"size": 3}, shards=paths)
    with pytest.raises(BingoError, match=r"^--shards: "):
        make(shards=paths[:1])
    for option, value in (("part", "1-of-2"), ("shards", paths)):
        with pytest.raises(BingoError, match=f"^--{option}: .*kmeans"):
            make("kmeans", **{option: value})
    with h5py.File(paths[1]) as file:
        start = file["members"].id.get_chunk_info(0).byte_offset
    damaged = bytearray(paths[1].read_bytes())
    damaged[start] ^= 1
    paths[1].write_bytes(damaged)
    with pytest.raises(BingoError, match=f"^{paths[1]}: "):
        make(shards=paths)
    assert not (tmp_path / "bags.h5").exists()


def test_embeddings_of_another_dataset_or_teacher_are_refused(make, inputs, list_demo, make_teacher, tmp_path):
    for what, path in (("listing", list_demo(39).path), ("teacher", make_teacher(1).path)):
        with pytest.raises(BingoError, match=f"^{inputs['embeddings']}: .*{path}"):
            make(**{what: path})
    assert not (tmp_path / "bags.h5").exists()
