import hashlib
import json
import shutil
from importlib.metadata import version
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import normalize

from bingo.artifacts.provenance import digest_json
from bingo.artifacts.tensors import digest_tensors, network_digest, read_metadata, write_tensors
from bingo.errors import BingoError
from bingo.evaluation import finetune, knn
from bingo.models.backbone import build_backbone
from bingo.study.images import FolderData
from bingo.study.protocols import PROTOCOLS, Finetune, Knn, LinearSweep
from bingo.study.sections import Backbone
from bingo.training.device import describe_device

from .conftest import CPU, SPEC, TRAIN, VAL

TRAINED = ["linear-moco", "linear-bingo", "linear-moco-small", "linear-cached", "semi-1", "semi-10"]


def test_the_result_says_what_was_measured_and_on_what(evaluate, listings, model, backbone, tmp_path):
    job = evaluate("knn-10", seed=4, output=tmp_path / "deep" / "result.json")
    result = json.loads(job.output.read_text())
    assert result.pop("digest") == digest_json(result)
    provenance = result.pop("provenance")
    digests = {}
    for split, path in zip(("train", "val"), listings, strict=True):
        with h5py.File(path) as file:
            digests[split] = file[split].attrs["digest"]
    assert result.pop("metrics").keys() == {"top1", "top5"}
    assert result == {"protocol": "knn-10", "model": "bingo", "seed": 4, "facts": {}}
    assert read_metadata(model)["digest"] == digest_tensors(backbone.state_dict())
    assert provenance["inputs"] == {**digests, "model": network_digest(read_metadata(model))}
    assert provenance["settings"] == job.settings
    assert (provenance["stage"], provenance["version"]) == ("evaluation", job.STAGE_VERSION)
    assert provenance["packages"]["torch"] == version("torch")
    assert {key: provenance[key] for key in ("device", "hardware")} == describe_device(CPU)


@pytest.mark.parametrize("name", list(PROTOCOLS))
def test_every_protocol_measures_shares_of_the_validation_images(name, shorten, measured, model):
    before = model.read_bytes()
    shorten(name)
    result = measured(name)
    metrics = result["metrics"]
    assert result["protocol"] == name
    assert list(metrics) == (["top1"] if name == "knn-1" else ["top1", "top5"])
    images = {metric: value * VAL / 100 for metric, value in metrics.items()}
    assert images == {metric: pytest.approx(round(count), abs=1e-9) for metric, count in images.items()}
    assert 0 <= metrics["top1"] <= metrics.get("top5", 100) <= 100
    facts = {Finetune: {"labels"}, LinearSweep: {"lr", "held_out"}}.get(type(PROTOCOLS[name]), set())
    assert set(result["facts"]) == facts
    assert model.read_bytes() == before


@pytest.mark.parametrize("name", TRAINED)
def test_the_same_seed_gives_the_same_bytes(name, shorten, measured, tmp_path):
    shorten(name)
    for output, workers in (("a.json", 0), ("b.json", 2 if name in ("linear-moco", "semi-10") else 0)):
        torch.rand(3)  # the global generator is somewhere else each time
        measured(name, seed=5, output=tmp_path / output, workers=workers)
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()


@pytest.mark.parametrize("name", ["knn-1", "knn-dino-20"])
def test_knn_on_the_demo_is_that_of_scikit_learn(name, measured, features):
    protocol = PROTOCOLS[name]
    (train, labels), (val, val_labels) = (features(split, protocol.interpolation) for split in ("train", "val"))

    def weights(distance):
        return np.exp((1 - distance**2 / 2) / 0.07)

    reference = KNeighborsClassifier(
        protocol.k, weights=weights if protocol.temperature else "uniform", algorithm="brute"
    )
    reference.fit(normalize(train.double()), labels)
    found = measured(name)["metrics"]["top1"]
    assert found == pytest.approx(100 * reference.score(normalize(val.double()), val_labels))
    assert 20 < found < 90


@pytest.mark.parametrize("name", [name for name, protocol in PROTOCOLS.items() if isinstance(protocol, Knn)])
def test_knn_compares_features_of_centre_views_resized_as_its_source_does(name, measured, features, monkeypatch):
    compared, compare = [], knn.knn_accuracy
    monkeypatch.setattr(knn, "knn_accuracy", lambda *arguments: compared.append(arguments[1:5]) or compare(*arguments))
    measured(name)
    interpolation = "bicubic" if name.startswith("knn-dino") else "bilinear"
    expected = (*features("train", interpolation), *features("val", interpolation))
    for found, values in zip(compared[0], expected, strict=True):
        torch.testing.assert_close(found, values, atol=1e-4, rtol=1e-4)


def test_images_without_a_label_take_no_part(measured, listings, features, tmp_path):
    kept = {"train": np.arange(TRAIN) % 4 > 0, "val": np.arange(VAL) % 3 > 0}
    partly = [Path(shutil.copy(path, tmp_path)) for path in listings]
    for path, (split, mask) in zip(partly, kept.items(), strict=True):
        with h5py.File(path, "r+") as file:
            file[f"{split}/label"][:] = np.where(mask, file[f"{split}/label"][:], -1)
    train, val = ([values[torch.from_numpy(kept[split])] for values in features(split)] for split in ("train", "val"))
    reference = KNeighborsClassifier(1, metric="cosine", algorithm="brute").fit(*train)
    found = measured("knn-1", partly)["metrics"]["top1"]
    assert found == pytest.approx(100 * reference.score(*val))


def test_fine_tuning_with_the_published_recipe_works_on_the_demo(measured, listings, tmp_path):
    result = measured("semi-10", seed=2)
    with h5py.File(listings[0]) as file:
        counts = np.bincount(file["train/label"][:])
    assert result["facts"] == {"labels": np.rint(0.1 * counts).sum()}
    assert 20 < result["metrics"]["top1"] < 90
    again = tmp_path / "again.json"
    measured("semi-10", seed=2, output=again)
    assert again.read_bytes() == (tmp_path / "result.json").read_bytes()


@pytest.mark.parametrize("name", ["knn-10", "linear-moco-small", "semi-10"])
def test_a_teacher_is_measured_by_its_backbone(name, shorten, measured, model, teacher):
    shorten(name)
    results = [measured(name, weights=path) for path in (model, teacher)]
    assert results[0]["metrics"] == results[1]["metrics"]
    assert results[0]["facts"] == results[1]["facts"]
    assert results[1]["provenance"]["inputs"]["model"] == network_digest(read_metadata(teacher))
    assert results[0]["provenance"]["inputs"]["model"] != results[1]["provenance"]["inputs"]["model"]


@pytest.mark.parametrize("name", ["linear", "finetune", "knn-dino-10", "semi-1", "linear-cached"])
def test_a_result_on_another_set_carries_that_sets_name(name, shorten, measured, listings):
    shorten(name)
    result = measured(name, target="cifar10", seed=1)
    assert result["protocol"] == f"cifar10-{name}"
    assert (result["model"], result["seed"]) == ("bingo", 1)
    assert result["provenance"]["settings"]["target"] == "cifar10"
    if name == "finetune":
        assert result["facts"] == {"labels": TRAIN}
    # The set's name changes nothing else.
    own = measured(name, seed=1)
    assert own["protocol"] == name
    assert (own["metrics"], own["facts"]) == (result["metrics"], result["facts"])


def write_folder(root, classes, images=2):
    """Write small images for each class, into a folder of its own, named as ImageNet's are."""
    for number, name in enumerate(classes):
        (root / name).mkdir(parents=True)
        for i in range(images):
            pixels = np.random.default_rng([number, i]).integers(0, 256, (12, 12, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / name / f"{name}_{i}.JPEG")
    return str(root)


@pytest.fixture
def folder(write_listings, tmp_path):
    """Listings of six images of each of two classes."""
    root = write_folder(tmp_path / "images", ["n01440764", "n01443537"], 6)
    return write_listings(tmp_path / "data", FolderData(source="folder", train=root, val=root))


def test_a_label_list_says_which_labels_are_used(folder, shorten, measured, tmp_path, monkeypatch):
    used, train = [], finetune.finetune
    monkeypatch.setattr(
        finetune, "finetune", lambda *arguments: used.append(arguments[2].images.listing) or train(*arguments)
    )
    shorten("semi-1")
    names = ["n01443537_5.JPEG", "n01440764_0.JPEG", "n01443537_2.JPEG"]
    path = tmp_path / "1percent.txt"
    path.write_text("\n".join(names) + "\n")
    result = measured("semi-1", folder, label_list=path)
    assert [used[0].path(row).name for row in range(len(used[0]))] == sorted(names)
    assert used[0].label.tolist() == [0, 1, 1]
    assert result["facts"] == {"labels": 3}
    assert result["provenance"]["inputs"]["label_list"] == hashlib.sha256(path.read_bytes()).hexdigest()
    drawn = measured("semi-1", folder)
    assert drawn["facts"] == {"labels": 2}
    assert "label_list" not in drawn["provenance"]["inputs"]


def test_a_label_list_of_another_set_is_refused(folder, measured, tmp_path):
    path = tmp_path / "1percent.txt"
    path.write_text("n01440764_0.JPEG\nn01440764_6.JPEG\n")
    with pytest.raises(BingoError, match=f"^{path}: names n01440764_6.JPEG, which is not among the training images"):
        measured("semi-1", folder, label_list=path)
    assert not (tmp_path / "result.json").exists()


@pytest.mark.parametrize(
    ("with_val", "labels", "message"),
    [
        (False, "auto", "val-listing.h5: no such file"),
        (True, "none", "train-listing.h5: the train images have no labels"),
    ],
)
def test_data_that_allow_no_evaluation_are_refused(with_val, labels, message, measured, write_listings, tmp_path):
    train = write_folder(tmp_path / "train", ["cat", "dog"])
    val = write_folder(tmp_path / "val", ["cat", "dog"]) if with_val else None
    listings = write_listings(tmp_path, FolderData(source="folder", train=train, val=val, labels=labels))
    with pytest.raises(BingoError, match=message) as caught:
        measured("knn-1", listings)
    assert str(caught.value).startswith(f"{tmp_path}/")
    assert not (tmp_path / "result.json").exists()


def test_validation_images_of_other_classes_are_refused(measured, write_listings, tmp_path):
    folders = [write_folder(tmp_path / name, [name, "dog"]) for name in ("cat", "bee")]
    listings = [
        write_listings(tmp_path / "listings" / Path(folder).name, FolderData(source="folder", train=folder, val=folder))
        for folder in folders
    ]
    (train, _), (_, val) = listings
    with pytest.raises(BingoError, match=f"{val}: its classes are not those of {train}"):
        measured("knn-1", (train, val))


@pytest.mark.parametrize("name", ["linear-moko", "mask-rcnn"])
def test_an_unknown_protocol_is_refused_with_the_nearest_name(name, measured):
    hint = "; did you mean 'linear-moco'" if name == "linear-moko" else ""
    with pytest.raises(BingoError, match=f"no protocol '{name}'{hint}"):
        measured(name)


def test_a_network_that_cannot_take_images_of_the_size_is_refused(measured, tmp_path):
    pytest.importorskip("timm")
    spec = Backbone(architecture="timm/vit_tiny_patch16_224")
    path = tmp_path / "backbone.safetensors"
    write_tensors(path, build_backbone(spec).state_dict(), {"method": "moco", "backbone": spec.model_dump()})
    with pytest.raises(
        BingoError, match=r"^backbone: cannot take images of 22 px \(.*\); set data\.preprocessing\.size$"
    ):
        measured("knn-1", weights=path)
    assert not (tmp_path / "result.json").exists()


def test_features_too_large_for_a_classifier_are_refused(shorten, measured, backbone, tmp_path):
    shorten("linear-moco")
    state = backbone.state_dict()
    state["layer4.0.bn2.weight"] = state["layer4.0.bn2.weight"] * 1e30
    write_tensors(tmp_path / "backbone.safetensors", state, {"method": "moco", "backbone": SPEC})
    with pytest.raises(BingoError, match="the linear classifier diverged; its features are far too large"):
        measured("linear-moco", weights=tmp_path / "backbone.safetensors")
    assert not (tmp_path / "result.json").exists()


def test_more_neighbours_than_images_are_refused(measured, write_listings, tmp_path):
    folder = write_folder(tmp_path / "train", ["cat", "dog"])
    listings = write_listings(tmp_path, FolderData(source="folder", train=folder, val=folder))
    with pytest.raises(BingoError, match="k 10 needs as many labelled images, there are 4"):
        measured("knn-10", listings)
