import logging

import h5py
import numpy as np
import pytest
from PIL import Image
from pydantic import TypeAdapter

from bingo.artifacts.tensors import network_digest, read_tensors
from bingo.bags import neighbours
from bingo.bags.bags import read_bags
from bingo.data.listing import read_listing
from bingo.errors import BingoError
from bingo.methods.bingo import Bingo
from bingo.report import sheet
from bingo.report.sheet import choose_anchors
from bingo.stages import bags as stage
from bingo.stages import sheets
from bingo.study.bags import Bag
from bingo.study.images import FolderData
from bingo.study.jobs import BagsJob, DataJob, EmbeddingsJob, StudentJob
from bingo.study.report_jobs import SheetsJob
from bingo.study.sections import NetworkInput, Preprocessing
from tests.stage import run_stage

CRITERIA = {
    "knn": {"teacher": "teacher", "size": 4},
    "kmeans": {"teacher": "teacher", "clusters": 6, "seed": 1},
    "label": {},
    "random": {"size": 4, "seed": 1},
}
NEED_FEATURES = ("knn", "kmeans")


def bag(criterion="knn", **settings):
    return TypeAdapter(Bag).validate_python({"criterion": criterion} | CRITERIA[criterion] | settings)


def make_bags(settings, **files):
    return run_stage(BagsJob, bags=settings, **files)


def make_sheets(listing, bags, pages):
    run_stage(SheetsJob, listing=listing, bags=bags, pages=pages)


def files(inputs, criterion):
    """What a criterion needs of the inputs."""
    nothing = {} if criterion in NEED_FEATURES else {"teacher": None, "embeddings": None}
    return inputs | nothing


@pytest.fixture(scope="module")
def inputs(list_demo, teacher, tmp_path_factory):
    """Listing, teacher and embeddings that belong together."""
    given = {"listing": list_demo(40).path, "teacher": teacher.path}
    embeddings = tmp_path_factory.mktemp("embeddings") / "teacher.h5"
    run_stage(EmbeddingsJob, preprocessing=Preprocessing(size=16, resize=16), **given, output=embeddings)
    return {**given, "embeddings": embeddings}


@pytest.fixture(scope="module")
def bags_path(inputs, tmp_path_factory):
    path = tmp_path_factory.mktemp("bags") / "bags.h5"
    make_bags(bag(), output=path, **inputs)
    return path


def refusal(call, *args, **kwargs):
    with pytest.raises(BingoError) as caught:
        call(*args, **kwargs)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_bags_are_the_neighbours_of_the_embeddings(inputs, bags_path):
    with h5py.File(inputs["embeddings"]) as file:
        features = file["embedding"][:].astype(np.float64)
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    similarity = features @ features.T
    np.fill_diagonal(similarity, -np.inf)
    bags = read_bags(bags_path)
    assert (np.diff(bags.indptr) == 4).all()
    expected = -np.sort(-similarity, axis=1)[:, :4]
    np.testing.assert_allclose(bags.similarity.reshape(-1, 4), expected, atol=1e-6)
    np.testing.assert_allclose(np.take_along_axis(similarity, bags.members.reshape(-1, 4), 1), expected, atol=1e-6)


@pytest.mark.parametrize("criterion", CRITERIA)
def test_bags_say_what_they_were_made_of_and_how_good_they_are(criterion, inputs, tmp_path):
    job = make_bags(bag(criterion), output=tmp_path / "bags.h5", **files(inputs, criterion))
    bags, listing = read_bags(job.output), read_listing(inputs["listing"], "train")
    attributes, sizes = bags.attributes, np.diff(bags.indptr)
    assert attributes["dataset_digest"] == listing.digest
    assert attributes["criterion"] == criterion
    assert attributes["provenance"]["stage"] == "bags"
    assert attributes["provenance"]["settings"] == job.settings
    assert attributes["purity"] == pytest.approx(bags.purity(listing.label))
    assert attributes["bags"] == len(sizes)
    found = [attributes[name] for name in ("smallest", "median", "largest")]
    assert found == [min(sizes), np.median(sizes), max(sizes)]
    expected = {"dataset": listing.digest}
    if criterion in NEED_FEATURES:
        with h5py.File(inputs["embeddings"]) as file:
            expected["embeddings"] = file.attrs["digest"]
        expected["teacher"] = network_digest(read_tensors(inputs["teacher"])[1])
        assert attributes["teacher_digest"] == expected["teacher"]
        assert 0 < attributes["mean_similarity"] <= 1
    else:
        assert "teacher_digest" not in attributes
        assert "mean_similarity" not in attributes
    assert attributes["provenance"]["inputs"] == expected


def test_purity_and_similarity_of_neighbours_are_means_over_members(inputs, bags_path):
    bags, listing = read_bags(bags_path), read_listing(inputs["listing"], "train")
    same = listing.label[bags.members.reshape(-1, 4)] == listing.label[:, None]
    assert bags.attributes["purity"] == pytest.approx(same.mean())
    assert bags.attributes["mean_similarity"] == pytest.approx(float(bags.similarity.mean()))


def test_settings_reach_the_bags(inputs, tmp_path):
    def made(criterion, **settings):
        make_bags(bag(criterion, **settings), output=tmp_path / "bags.h5", **files(inputs, criterion))
        return read_bags(tmp_path / "bags.h5")

    assert made("kmeans", clusters=1).attributes["largest"] == 40
    assert 2 <= made("kmeans", clusters=9).attributes["bags"] <= 9
    assert made("random", size=19).attributes["bags"] == 2
    for criterion in ("kmeans", "random"):
        assert (made(criterion, seed=1).bag_of != made(criterion, seed=2).bag_of).any()
    short, long = (made("kmeans", iterations=rounds).attributes["mean_similarity"] for rounds in (1, 20))
    assert short < long
    labels = read_listing(inputs["listing"], "train").label
    assert made("label").attributes["bags"] == len(set(labels))


@pytest.mark.parametrize("criterion", NEED_FEATURES)
@pytest.mark.parametrize("missing", ["teacher", "embeddings"])
def test_a_criterion_that_needs_features_says_so(criterion, missing, inputs, tmp_path):
    message = refusal(make_bags, bag(criterion), output=tmp_path / "bags.h5", **inputs | {missing: None})
    assert message == f"bags: criterion {criterion} needs --teacher and --embeddings"
    assert not list(tmp_path.iterdir())


def test_without_labels_there_are_no_label_bags_but_random_ones(tmp_path):
    for number in range(6):
        pixels = np.full((8, 8, 3), 40 * number, dtype=np.uint8)
        (tmp_path / "images").mkdir(exist_ok=True)
        Image.fromarray(pixels).save(tmp_path / "images" / f"{number}.png")
    data = FolderData(source="folder", train=str(tmp_path / "images"), labels="none")
    output = tmp_path / "bags.h5"
    given = {"listing": run_stage(DataJob, split="train", data=data, output=tmp_path / "train.h5").output}
    message = refusal(make_bags, bag("label"), output=output, **given)
    assert message.startswith("bags: criterion label needs labels")
    assert "choose" in message
    assert not output.exists()
    make_bags(bag("random", size=1), output=output, **given)
    assert "purity" not in read_bags(output).attributes


@pytest.fixture
def shards(inputs, tmp_path, monkeypatch):
    """Make the shards of knn bags, so many."""
    for module in (neighbours, stage):
        monkeypatch.setattr(module, "QUERY_BLOCK", 8)

    def make(parts, **settings):
        paths = [tmp_path / f"{number}-of-{parts}.h5" for number in range(1, parts + 1)]
        for path in paths:
            make_bags(bag(**settings), output=path, part=path.stem, **inputs)
        return paths

    return make


@pytest.mark.parametrize("parts", [1, 2, 3, 7])
@pytest.mark.parametrize("search", ["exact", {"ivf": {"lists": 6, "probes": 2}}])
def test_shards_give_the_bytes_of_a_single_job(search, parts, shards, inputs, tmp_path):
    make_bags(bag(search=search), output=tmp_path / "alone.h5", **inputs)
    paths = shards(parts, search=search)
    make_bags(bag(search=search), output=tmp_path / "gathered.h5", shards=paths[::-1], **inputs)
    assert (tmp_path / "gathered.h5").read_bytes() == (tmp_path / "alone.h5").read_bytes()


def test_shards_of_other_settings_or_not_all_of_them_are_refused(shards, inputs, tmp_path):
    paths = shards(2)
    output = tmp_path / "bags.h5"
    message = refusal(make_bags, bag(size=3), output=output, shards=paths, **inputs)
    assert message == f"{paths[0]}: was made with other settings or inputs; delete it and run again"
    message = refusal(make_bags, bag(), output=output, shards=paths[:1], **inputs)
    assert message == "--shards: the last of 40 rows is missing; name all shards"
    assert not output.exists()


def test_a_damaged_shard_is_refused(shards, inputs, tmp_path):
    paths = shards(2)
    with h5py.File(paths[1]) as file:
        start = file["members"].id.get_chunk_info(0).byte_offset
    damaged = bytearray(paths[1].read_bytes())
    damaged[start] ^= 1
    paths[1].write_bytes(damaged)
    message = refusal(make_bags, bag(), output=tmp_path / "bags.h5", shards=paths, **inputs)
    assert message.startswith(f"{paths[1]}: truncated or damaged")


@pytest.mark.parametrize("criterion", ["kmeans", "label", "random"])
def test_bags_that_no_search_makes_have_no_shards(criterion, inputs, tmp_path):
    given = files(inputs, criterion)
    message = refusal(make_bags, bag(criterion), output=tmp_path / "x.h5", part="1-of-2", **given)
    assert message == f"--part: bags of criterion {criterion} are made in one job; leave it out"
    message = refusal(make_bags, bag(criterion), output=tmp_path / "x.h5", shards=[tmp_path / "y.h5"], **given)
    assert message == f"--shards: bags of criterion {criterion} are made in one job; leave it out"


@pytest.mark.parametrize("criterion", CRITERIA)
def test_equal_inputs_give_equal_bytes(criterion, inputs, tmp_path):
    for name in ("first.h5", "second.h5"):
        make_bags(bag(criterion), output=tmp_path / name, **files(inputs, criterion))
    assert (tmp_path / "first.h5").read_bytes() == (tmp_path / "second.h5").read_bytes()


def test_purity_is_logged(inputs, tmp_path, caplog):
    with caplog.at_level(logging.INFO):
        make_bags(bag(size=2), output=tmp_path / "bags.h5", **inputs)
    assert f"purity: {read_bags(tmp_path / 'bags.h5').attributes['purity']:.4f}" in caplog.text


@pytest.mark.parametrize(
    ("criterion", "setting", "value"), [("knn", "size", 40), ("kmeans", "clusters", 41), ("random", "size", 40)]
)
def test_what_the_dataset_does_not_allow_is_refused_and_leaves_no_file(criterion, setting, value, inputs, tmp_path):
    message = refusal(make_bags, bag(criterion, **{setting: value}), output=tmp_path / "bags.h5", **inputs)
    assert message == f"bags: {setting} {value} needs at least 41 images, but there are 40; lower it"
    assert not list(tmp_path.iterdir())


def test_as_many_as_the_dataset_allows_are_made(inputs, tmp_path):
    for criterion, settings, expected in (
        ("knn", {"size": 39}, (40, 39, 39)),
        ("kmeans", {"clusters": 40}, (40, 1, 1)),
        ("random", {"size": 39}, (1, 40, 40)),
    ):
        make_bags(bag(criterion, **settings), output=tmp_path / "bags.h5", **inputs)
        attributes = read_bags(tmp_path / "bags.h5").attributes
        assert tuple(attributes[name] for name in ("bags", "smallest", "largest")) == expected


def test_embeddings_of_another_dataset_are_refused(inputs, list_demo, tmp_path):
    changed = inputs | {"listing": list_demo(39).path}
    message = refusal(make_bags, bag(), output=tmp_path / "bags.h5", **changed)
    assert message.startswith(f"{inputs['embeddings']}: belongs to another dataset")
    assert str(changed["listing"]) in message
    assert not list(tmp_path.iterdir())


def test_embeddings_of_another_teacher_are_refused(inputs, make_teacher, tmp_path):
    changed = inputs | {"teacher": make_teacher(1).path}
    message = refusal(make_bags, bag(), output=tmp_path / "bags.h5", **changed)
    assert message.startswith(f"{inputs['embeddings']}: belongs to another teacher")
    assert str(changed["teacher"]) in message


@pytest.mark.parametrize("criterion", CRITERIA)
def test_bags_of_every_criterion_have_every_page_of_a_sheet(criterion, inputs, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(sheets, "draw_sheet", lambda *arguments: seen.append(arguments[2:]))
    make_bags(bag(criterion), output=tmp_path / "bags.h5", **files(inputs, criterion))
    bags, label = read_bags(tmp_path / "bags.h5"), read_listing(inputs["listing"], "train").label
    for page in ("random", "more", "best", "worst"):
        make_sheets(inputs["listing"], tmp_path / "bags.h5", {page: tmp_path / "sheet.png"})
        anchors, output = seen.pop()
        np.testing.assert_array_equal(anchors, choose_anchors(bags, label, page))
        assert output == tmp_path / "sheet.png"


def test_a_sheet_is_a_picture(inputs, bags_path, tmp_path, monkeypatch):
    monkeypatch.setattr(sheet, "_ROWS", 2)
    make_sheets(inputs["listing"], bags_path, {"worst": tmp_path / "sheet.png"})
    assert Image.open(tmp_path / "sheet.png").format == "PNG"


def test_a_sheet_of_bags_of_another_dataset_is_refused(bags_path, list_demo, tmp_path):
    message = refusal(make_sheets, list_demo(39).path, bags_path, {"random": tmp_path / "sheet.png"})
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
    settings = {"preprocessing": NetworkInput(size=16), "student": student, "seed": 0}

    def train(**changes):
        given = {"listing": inputs["listing"], "teacher": inputs["teacher"], "bags": bags_path} | changes
        run_stage(StudentJob, **settings, **given, output=tmp_path)

    return train


def test_a_student_takes_the_bags_of_its_dataset_and_teacher(train, bags_path, tmp_path):
    train()
    provenance = read_tensors(tmp_path / "backbone.safetensors")[1]["provenance"]
    assert provenance["inputs"]["bags"] == read_bags(bags_path).attributes["digest"]


@pytest.mark.parametrize("criterion", ["kmeans", "label", "random"])
def test_a_student_takes_bags_of_any_criterion(criterion, train, inputs, tmp_path):
    make_bags(bag(criterion), output=tmp_path / "bags.h5", **files(inputs, criterion))
    train(bags=tmp_path / "bags.h5")


def test_a_student_refuses_bags_of_another_dataset(train, bags_path, list_demo):
    message = refusal(train, listing=list_demo(39).path)
    assert message.startswith(f"{bags_path}: belongs to another dataset")


def test_a_student_refuses_bags_of_another_teacher(train, bags_path, make_teacher):
    message = refusal(train, teacher=make_teacher(1).path)
    assert message.startswith(f"{bags_path}: belongs to another teacher")


def test_a_student_refuses_damaged_bags(train, bags_path, tmp_path):
    path = tmp_path / "damaged.h5"
    path.write_bytes(bags_path.read_bytes()[:-1])
    assert str(path) in refusal(train, bags=path)
