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

from bingo.artifacts.provenance import digest_json
from bingo.artifacts.tensors import digest_tensors, network_digest, read_metadata
from bingo.data.listing import read_listing
from bingo.errors import BingoError
from bingo.evaluation import finetune
from bingo.evaluation.probe import Measurement
from bingo.stages import evaluation
from bingo.study.images import FolderData
from bingo.study.protocols import PROTOCOLS, Finetune, LinearSweep
from bingo.training import embed
from bingo.training.device import describe_device

from ..training.processes import run_in_processes
from .conftest import CPU, TRAIN, VAL


def test_the_result_names_the_network_the_images_and_the_settings(evaluate, listings, model, backbone, tmp_path):
    job, result = evaluate("knn-10", seed=4, output=tmp_path / "deep" / "result.json")
    assert result.pop("digest") == digest_json(result)
    provenance = result.pop("provenance")
    assert result.pop("metrics").keys() == {"top1", "top5"}
    assert result == {"protocol": "knn-10", "model": "bingo", "seed": 4, "facts": {}}
    digests = {split: read_listing(path, split).digest for split, path in zip(("train", "val"), listings, strict=True)}
    assert read_metadata(model)["digest"] == digest_tensors(backbone.state_dict())
    assert provenance["inputs"] == {**digests, "model": network_digest(read_metadata(model))}
    assert provenance["settings"] == job.settings
    assert (provenance["stage"], provenance["version"]) == ("evaluation", job.STAGE_VERSION)
    assert provenance["packages"]["torch"] == version("torch")
    assert {key: provenance[key] for key in ("device", "hardware")} == describe_device(CPU)


@pytest.mark.parametrize("name", PROTOCOLS)
def test_every_protocol_measures_shares_and_leaves_a_frozen_backbone_as_it_was(
    name, shorten, evaluate, backbone, monkeypatch
):
    loaded, load = [], evaluation.read_backbone
    monkeypatch.setattr(evaluation, "read_backbone", lambda *arguments: loaded.append(load(*arguments)) or loaded[-1])
    shorten(name)
    _, result = evaluate(name)
    metrics = result["metrics"]
    assert list(metrics) == (["top1"] if name == "knn-1" else ["top1", "top5"])
    images = {metric: value * VAL / 100 for metric, value in metrics.items()}
    assert images == {metric: pytest.approx(round(count), abs=1e-9) for metric, count in images.items()}
    assert 0 <= metrics["top1"] <= metrics.get("top5", 100) <= 100
    facts = {Finetune: {"labels"}, LinearSweep: {"lr", "held_out"}}.get(type(PROTOCOLS[name]), set())
    assert set(result["facts"]) == facts
    if not isinstance(PROTOCOLS[name], Finetune):
        ((network, _),) = loaded
        assert digest_tensors(network.state_dict()) == digest_tensors(backbone.state_dict())
        assert not any(part.training for part in network.modules())
        assert not any(parameter.requires_grad or parameter.grad is not None for parameter in network.parameters())


@pytest.mark.parametrize(
    ("name", "workers"), [("linear-moco", 2), ("linear-moco-small", 0), ("linear-cached", 0), ("semi-10", 2)]
)
def test_the_same_seed_gives_the_same_bytes(name, workers, shorten, evaluate, tmp_path):
    shorten(name)
    for output, count in (("a.json", 0), ("b.json", workers)):
        torch.rand(3)  # the global generator is somewhere else each time
        evaluate(name, seed=5, output=tmp_path / output, workers=count)
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()


def test_images_without_a_label_take_no_part(evaluate, listings, features, tmp_path):
    kept = {"train": np.arange(TRAIN) % 4 > 0, "val": np.arange(VAL) % 3 > 0}
    partly = [Path(shutil.copy(path, tmp_path)) for path in listings]
    for path, (split, mask) in zip(partly, kept.items(), strict=True):
        with h5py.File(path, "r+") as file:
            file[f"{split}/label"][:] = np.where(mask, file[f"{split}/label"][:], -1)
    train, val = ([values[torch.from_numpy(kept[split])] for values in features(split)] for split in ("train", "val"))
    reference = KNeighborsClassifier(1, metric="cosine", algorithm="brute").fit(*train)
    _, result = evaluate("knn-1", partly)
    assert result["metrics"]["top1"] == pytest.approx(100 * reference.score(*val))


def test_fine_tuning_with_the_published_recipe_classifies_the_demo(evaluate):
    assert 20 < evaluate("semi-10", seed=2)[1]["metrics"]["top1"] < 90


def test_a_teacher_is_measured_by_its_backbone(evaluate, model, teacher):
    (_, student), (_, result) = (evaluate("knn-10", weights=path) for path in (model, teacher.path))
    assert result["metrics"] == student["metrics"]
    assert result["provenance"]["inputs"]["model"] == network_digest(read_metadata(teacher.path))


@pytest.mark.parametrize("name", ["finetune", "knn-dino-10"])
def test_a_result_on_a_transfer_set_carries_that_sets_name(name, shorten, evaluate):
    shorten(name)
    _, result = evaluate(name, target="cifar10", seed=1)
    _, own = evaluate(name, seed=1)
    assert (result["protocol"], own["protocol"]) == (f"cifar10-{name}", name)
    assert (result["model"], result["seed"]) == ("bingo", 1)
    assert (own["metrics"], own["facts"]) == (result["metrics"], result["facts"])
    if name == "finetune":
        assert result["facts"] == {"labels": TRAIN}


@pytest.fixture
def folder_listings(write_listings, tmp_path):
    """List small images: (classes, images of each, other fields) -> the two listings."""

    def make(classes, images=2, **fields):
        root = tmp_path / "-".join(classes)
        for number, name in enumerate(classes):
            (root / name).mkdir(parents=True, exist_ok=True)
            for i in range(images):
                pixels = np.random.default_rng([number, i]).integers(0, 256, (12, 12, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(root / name / f"{name}_{i}.JPEG")
        data = FolderData(source="folder", train=str(root), val=str(root), **fields)
        return write_listings(root.with_suffix(".listings"), data)

    return make


def test_a_label_list_selects_the_labels_that_are_used(folder_listings, shorten, evaluate, tmp_path, monkeypatch):
    used, train = [], finetune.finetune
    monkeypatch.setattr(
        finetune, "finetune", lambda *arguments: used.append(arguments[2].images.listing) or train(*arguments)
    )
    shorten("semi-1")
    names = ["n01443537_5.JPEG", "n01440764_0.JPEG", "n01443537_2.JPEG"]
    path = tmp_path / "1percent.txt"
    path.write_text("\n".join(names) + "\n")
    listings = folder_listings(["n01440764", "n01443537"], 6)
    _, result = evaluate("semi-1", listings, label_list=path)
    assert [used[0].path(row).name for row in range(len(used[0]))] == sorted(names)
    assert used[0].label.tolist() == [0, 1, 1]
    assert result["facts"] == {"labels": 3}
    assert result["provenance"]["inputs"]["label_list"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert evaluate("semi-1", listings)[1]["facts"] == {"labels": 2}


def test_inputs_that_allow_no_evaluation_are_refused(evaluate, folder_listings, transformer, tmp_path):
    train, val = folder_listings(["cat", "dog"], labels="none")
    with pytest.raises(BingoError, match=f"^{train}: "):
        evaluate("knn-1", (train, val))
    (train, _), (_, val) = folder_listings(["cat", "dog"]), folder_listings(["bee", "dog"])
    with pytest.raises(BingoError, match=f"^{val}: .*{train}"):
        evaluate("knn-1", (train, val))
    with pytest.raises(BingoError, match=r"^evaluations: .*'linear-moko'.*'linear-moco'"):
        evaluate("linear-moko")
    with pytest.raises(BingoError, match=r"^backbone: .*data\.preprocessing\.size"):
        evaluate("knn-1", weights=transformer)
    assert not (tmp_path / "result.json").exists()


SABOTAGE = {
    "training mode": lambda network: network.layer2[0].bn1.train(),
    "batch statistics": lambda network: network.train()(torch.randn(4, 3, 22, 22)) is network.eval(),
    "weight": lambda network: network.conv1.weight.data[0, 0, 0, 0].add_(1e-6),
    "running mean": lambda network: network.layer4[0].bn2.running_mean.add_(1e-6),
    "number of batches": lambda network: network.bn1.num_batches_tracked.add_(1),
}


@pytest.mark.parametrize("what", SABOTAGE)
def test_a_frozen_protocol_that_changes_the_backbone_gives_no_result(what, evaluate, monkeypatch, tmp_path):
    def evaluator(protocol, probe):
        SABOTAGE[what](probe.backbone)
        return Measurement({"top1": 100.0})

    monkeypatch.setitem(evaluation._EVALUATORS, type(PROTOCOLS["linear-moco"]), evaluator)
    with pytest.raises(AssertionError, match="linear-moco"):
        evaluate("linear-moco")
    assert list(tmp_path.iterdir()) == []


# Training images make three batches, validation images one: shares are unequal, and one process has none.
@pytest.mark.slow
@pytest.mark.parametrize("name", ["knn-10", "linear-cached", "linear-moco-small", "linear-moco"])
def test_two_processes_measure_as_one(name, shorten, evaluate, tmp_path, monkeypatch):
    monkeypatch.setattr(embed, "EMBED_BATCH", 80)
    # With batches of 19 the last one has one image, so one process has none.
    shorten(name, **({"batch_size": 19} if name.startswith("linear-moco") else {}))
    results = []
    for processes in (1, 2):
        output = tmp_path / f"{processes}.json"
        run_in_processes(processes, lambda output=output: evaluate(name, output=output) and None)
        results.append(json.loads(output.read_text()))
    alone, shared = results
    assert alone["facts"] == shared["facts"]
    assert alone["metrics"] == shared["metrics"]
