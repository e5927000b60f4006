import json
import shutil
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler

from bingo.config import FolderData
from bingo.errors import BingoError
from bingo.evaluation import stage
from bingo.evaluation.linear import linear_accuracy, train_linear
from bingo.evaluation.protocols import PROTOCOLS, Linear
from bingo.evaluation.stage import evaluate
from bingo.jobs import EvaluationJob
from bingo.models.backbone import build_backbone
from bingo.sections import Backbone
from bingo.tensors import digest_tensors, network_digest, read_metadata, write_tensors
from bingo.views.recipes import RECIPES, Recipe

CPU = torch.device("cpu")


@pytest.fixture
def job(preprocessing):
    def make(protocol, seed=0):
        return EvaluationJob(version=1, preprocessing=preprocessing, model="bingo", protocol=protocol, seed=seed)

    return make


@pytest.fixture
def short(monkeypatch):
    """Register a protocol with two epochs and batches of 32; for knn, the protocol itself."""

    def register(name):
        protocol = PROTOCOLS[name]
        if isinstance(protocol, Linear):
            protocol = replace(protocol, epochs=2, batch_size=32, milestones=(1,))
        monkeypatch.setitem(PROTOCOLS, f"short-{name}", protocol)
        return f"short-{name}"

    return register


@pytest.fixture
def seen(monkeypatch):
    """What the stage hands to training and measuring of a linear classifier: the batches of each epoch, the rest."""
    calls = {}

    def train(protocol, batches, dim, classes, seed):
        calls["epochs"] = [list(batches(epoch)) for epoch in range(protocol.epochs)]
        calls.update(protocol=protocol, dim=dim, classes=classes, seed=seed)
        return train_linear(protocol, batches, dim, classes, seed)

    def measure(classifier, features, labels):
        calls.update(val=features, val_labels=labels)
        return linear_accuracy(classifier, features, labels)

    monkeypatch.setattr(stage, "train_linear", train)
    monkeypatch.setattr(stage, "linear_accuracy", measure)
    return calls


def rows_of(features, expected):
    """Return which row of ``expected`` each of ``features`` is."""
    distance = torch.cdist(features.double(), expected.double())
    assert distance.min(1).values.max() < 1e-3
    return distance.argmin(1)


def test_the_result_says_what_was_measured_and_on_what(job, listings, model, backbone, tmp_path):
    evaluate(job("knn-10", seed=4), *listings, model, tmp_path / "deep" / "result.json", CPU, 0)
    result = json.loads((tmp_path / "deep" / "result.json").read_text())
    provenance = result.pop("provenance")
    digests = {}
    for split, path in zip(("train", "val"), listings, strict=True):
        with h5py.File(path) as file:
            digests[split] = file[split].attrs["digest"]
    assert result.pop("metrics").keys() == {"top1"}
    assert result == {"protocol": "knn-10", "model": "bingo", "seed": 4}
    assert read_metadata(model)["digest"] == digest_tensors(backbone.state_dict())
    assert provenance["inputs"] == {**digests, "model": network_digest(read_metadata(model))}
    assert provenance["settings"] == job("knn-10", seed=4).model_dump(mode="json")
    assert (provenance["stage"], provenance["version"]) == ("evaluation", 1)
    assert provenance["packages"]["torch"] == version("torch")


@pytest.mark.parametrize("name", list(PROTOCOLS))
def test_every_protocol_measures_shares_of_the_validation_images(name, short, job, listings, model, tmp_path):
    before = model.read_bytes()
    evaluate(job(short(name)), *listings, model, tmp_path / "result.json", CPU, 0)
    metrics = json.loads((tmp_path / "result.json").read_text())["metrics"]
    images = {metric: value * 60 / 100 for metric, value in metrics.items()}
    assert images == {metric: pytest.approx(round(count), abs=1e-9) for metric, count in images.items()}
    assert 0 <= metrics["top1"] <= metrics.get("top5", 100) <= 100
    assert model.read_bytes() == before


@pytest.mark.parametrize("name", ["linear-moco", "linear-moco-small"])
def test_the_same_seed_gives_the_same_bytes(name, short, job, listings, model, tmp_path):
    for output in ("a.json", "b.json"):
        torch.rand(3)  # the global generator is somewhere else each time
        evaluate(job(short(name), seed=5), *listings, model, tmp_path / output, CPU, 0)
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()


def test_knn_on_the_demo_is_that_of_scikit_learn(job, listings, model, features, tmp_path):
    evaluate(job("knn-1"), *listings, model, tmp_path / "result.json", CPU, 0)
    reference = KNeighborsClassifier(1, metric="cosine", algorithm="brute").fit(*features["train"])
    found = json.loads((tmp_path / "result.json").read_text())["metrics"]["top1"]
    assert found == pytest.approx(100 * reference.score(*features["val"]))


def test_images_without_a_label_take_no_part(job, listings, model, features, tmp_path):
    kept = {"train": np.arange(80) % 4 > 0, "val": np.arange(60) % 3 > 0}
    partly = [Path(shutil.copy(path, tmp_path)) for path in listings]
    for path, (split, mask) in zip(partly, kept.items(), strict=True):
        with h5py.File(path, "r+") as file:
            file[f"{split}/label"][:] = np.where(mask, file[f"{split}/label"][:], -1)
    evaluate(job("knn-1"), *partly, model, tmp_path / "result.json", CPU, 0)
    train, val = ([values[torch.from_numpy(kept[split])] for values in features[split]] for split in ("train", "val"))
    reference = KNeighborsClassifier(1, metric="cosine", algorithm="brute").fit(*train)
    found = json.loads((tmp_path / "result.json").read_text())["metrics"]["top1"]
    assert found == pytest.approx(100 * reference.score(*val))


def test_cached_features_are_standardised_by_the_training_images_alone(
    job, short, seen, listings, model, features, tmp_path
):
    evaluate(job(short("linear-moco-small"), seed=7), *listings, model, tmp_path / "result.json", CPU, 0)
    (train, labels), (val, val_labels) = features["train"], features["val"]
    scaler = StandardScaler().fit(train.double())
    expected, expected_val = (
        torch.from_numpy(scaler.transform(part.double()) * np.sqrt(79 / 80)) for part in (train, val)
    )
    assert (seen["dim"], seen["classes"], seen["seed"]) == (train.shape[1], 10, 7)
    for epoch in seen["epochs"]:
        rows = torch.cat([rows_of(batch, expected) for batch, _ in epoch])
        assert sorted(rows.tolist()) == list(range(80))
        assert torch.equal(torch.cat([batch_labels for _, batch_labels in epoch]), labels[rows])
    torch.testing.assert_close(seen["val"].double(), expected_val, atol=1e-3, rtol=1e-3)
    assert torch.equal(seen["val_labels"], val_labels)


def test_augmented_features_are_those_of_the_images_with_their_labels(
    job, short, seen, listings, model, features, monkeypatch, tmp_path
):
    # With crops that keep the whole image, an augmented view is the centre view.
    monkeypatch.setitem(RECIPES, "crop-flip", Recipe(crop_scale=(1, 1), crop_ratio=(1, 1), flip=0))
    evaluate(job(short("linear-moco")), *listings, model, tmp_path / "result.json", CPU, 0)
    (train, labels), (val, _) = features["train"], features["val"]
    orders = []
    for epoch in seen["epochs"]:
        assert [len(batch) for batch, _ in epoch] == [32, 32, 16]  # the incomplete last batch too
        rows = torch.cat([rows_of(batch, train) for batch, _ in epoch])
        assert torch.equal(torch.cat([batch_labels for _, batch_labels in epoch]), labels[rows])
        assert len(set(rows.tolist())) == 80
        orders.append(rows.tolist())
    assert orders[0] != orders[1]
    torch.testing.assert_close(seen["val"], val, atol=1e-4, rtol=1e-4)  # not standardised


def test_augmented_features_are_new_in_every_epoch(job, short, seen, listings, model, tmp_path):
    evaluate(job(short("linear-moco")), *listings, model, tmp_path / "result.json", CPU, 0)
    first, second = (torch.cat([batch for batch, _ in epoch]) for epoch in seen["epochs"])
    assert torch.cdist(first.double(), second.double()).min() > 1e-3


def test_a_teacher_is_measured_by_its_backbone(job, listings, model, backbone, tmp_path):
    head = {"0.weight": torch.randn(5, backbone.dim), "0.bias": torch.randn(5)}
    head |= {"2.weight": torch.randn(4, 5), "2.bias": torch.randn(4)}
    state = {f"backbone.{name}": tensor for name, tensor in backbone.state_dict().items()}
    state |= {f"head.{name}": tensor for name, tensor in head.items()}
    spec = {"architecture": "resnet10", "stem": "small", "width": 0.125}
    write_tensors(tmp_path / "teacher.safetensors", state, {"backbone": spec})
    results = []
    for path in (model, tmp_path / "teacher.safetensors"):
        evaluate(job("knn-10"), *listings, path, tmp_path / "result.json", CPU, 0)
        results.append(json.loads((tmp_path / "result.json").read_text())["metrics"])
    assert results[0] == results[1]


def test_a_protocol_that_changes_the_backbone_gives_no_result(job, listings, model, monkeypatch, tmp_path):
    def measure(probe, protocol):
        probe.backbone.bn1.running_mean += 1  # what batch norm in training mode does
        yield "top1", 100.0

    monkeypatch.setattr(stage.Probe, "measure", measure)
    with pytest.raises(AssertionError, match="changed the backbone"):
        evaluate(job("knn-1"), *listings, model, tmp_path / "result.json", CPU, 0)
    assert list(tmp_path.iterdir()) == []


def write_folder(root, classes):
    """Write two small images for each class, into a folder of its own."""
    for name in classes:
        (root / name).mkdir(parents=True)
        for i in range(2):
            Image.fromarray(np.full((8, 8, 3), 40 * i, dtype=np.uint8)).save(root / name / f"{i}.png")
    return str(root)


@pytest.mark.parametrize(
    ("with_val", "labels", "message"),
    [
        (False, "auto", "val-listing.h5: no such file"),
        (True, "none", "train-listing.h5: the train images have no labels"),
    ],
)
def test_data_that_allow_no_evaluation_are_refused(with_val, labels, message, job, model, write_listings, tmp_path):
    train = write_folder(tmp_path / "train", ["cat", "dog"])
    val = write_folder(tmp_path / "val", ["cat", "dog"]) if with_val else None
    listings = write_listings(tmp_path, FolderData(source="folder", train=train, val=val, labels=labels))
    with pytest.raises(BingoError, match=message) as caught:
        evaluate(job("knn-1"), *listings, model, tmp_path / "result.json", CPU, 0)
    assert str(caught.value).startswith(f"{tmp_path}/")
    assert not (tmp_path / "result.json").exists()


def test_validation_images_of_other_classes_are_refused(job, model, write_listings, tmp_path):
    folders = [write_folder(tmp_path / name, [name, "dog"]) for name in ("cat", "bee")]
    listings = [
        write_listings(tmp_path / "listings" / Path(folder).name, FolderData(source="folder", train=folder, val=folder))
        for folder in folders
    ]
    (train, _), (_, val) = listings
    with pytest.raises(BingoError, match=f"{val}: its classes are not those of {train}"):
        evaluate(job("knn-1"), train, val, model, tmp_path / "result.json", CPU, 0)


def test_an_unknown_protocol_is_refused_with_the_nearest_name(job, listings, model, tmp_path):
    with pytest.raises(BingoError, match="no protocol 'linear-moko'; did you mean 'linear-moco'"):
        evaluate(job("linear-moko"), *listings, model, tmp_path / "result.json", CPU, 0)


def test_a_network_that_cannot_take_images_of_the_size_is_refused(job, listings, tmp_path):
    pytest.importorskip("timm")
    spec = Backbone(architecture="timm/vit_tiny_patch16_224")
    path = tmp_path / "backbone.safetensors"
    write_tensors(path, build_backbone(spec).state_dict(), {"method": "moco", "backbone": spec.model_dump()})
    with pytest.raises(
        BingoError, match=r"^backbone: cannot take images of 28 px \(.*\); set data\.preprocessing\.size$"
    ):
        evaluate(job("knn-1"), *listings, path, tmp_path / "result.json", CPU, 0)
    assert not (tmp_path / "result.json").exists()


def test_more_neighbours_than_images_are_refused(job, model, write_listings, tmp_path):
    folder = write_folder(tmp_path / "train", ["cat", "dog"])
    listings = write_listings(tmp_path, FolderData(source="folder", train=folder, val=folder))
    with pytest.raises(BingoError, match="knn-10 needs 10 labelled images, there are 4"):
        evaluate(job("knn-10"), *listings, model, tmp_path / "result.json", CPU, 0)
