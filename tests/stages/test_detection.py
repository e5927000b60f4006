import hashlib
import json
import shutil
from dataclasses import replace

import pytest
import torch

from bingo.artifacts.tensors import network_digest, read_metadata, write_tensors
from bingo.errors import BingoError
from bingo.evaluation.detection.batches import DetectionBatches
from bingo.models.backbone import build_backbone
from bingo.stages import detection as stage
from bingo.study.jobs import DetectionJob
from bingo.study.protocols import DETECTION_PROTOCOLS
from bingo.study.sections import Backbone
from tests.evaluation.detection.conftest import narrow, resnet, shapes, tiny  # noqa: F401

from .conftest import CPU, INPUT


@pytest.fixture(autouse=True)
def short(monkeypatch, narrow, tiny):  # noqa: F811
    """Register two protocols of two epochs on small images."""
    protocol = replace(tiny, epochs=2, lr=0.005)
    monkeypatch.setitem(DETECTION_PROTOCOLS, "short-mask", protocol)
    monkeypatch.setitem(DETECTION_PROTOCOLS, "short-faster", replace(protocol, masks=False))


@pytest.fixture
def job(shapes, resnet, tmp_path):  # noqa: F811
    """The job of measuring the backbone on the generated shapes."""

    def make(protocol="short-faster", val=shapes["val"], train=shapes["train"], name="result", **changes):
        fields = {"preprocessing": INPUT, "model": "bingo", "protocol": protocol, "target": "shapes", "seed": 0}
        fields |= {"images": train[0], "annotations": train[1], "val_images": val[0], "val_annotations": val[1]}
        fields |= {"weights": resnet, "output": tmp_path / "deep" / f"{name}.json"}
        return DetectionJob(**fields | changes)

    return make


@pytest.mark.parametrize(
    ("protocol", "kinds"),
    [("short-faster", ["box"]), pytest.param("short-mask", ["box", "mask"], marks=pytest.mark.slow)],
)
def test_the_result_names_the_network_the_images_and_the_settings(protocol, kinds, job, shapes, resnet):  # noqa: F811
    made = job(protocol, seed=4)
    stage.run(made, CPU, 0)
    result = json.loads(made.output.read_text())
    assert (result["protocol"], result["model"], result["seed"]) == (f"shapes-{protocol}", "bingo", 4)
    assert set(result["metrics"]) == {f"{kind}_ap{at}" for kind in kinds for at in ("", "50", "75")}
    assert all(0 <= value <= 100 for value in result["metrics"].values())
    provenance = result["provenance"]
    assert provenance["inputs"] == {
        "train": hashlib.sha256(shapes["train"][1].read_bytes()).hexdigest(),
        "val": hashlib.sha256(shapes["val"][1].read_bytes()).hexdigest(),
        "model": network_digest(read_metadata(resnet)),
    }
    assert (provenance["stage"], provenance["version"], provenance["device"]) == ("detection", 2, "cpu")
    assert provenance["settings"] == made.settings
    assert sorted(path.name for path in made.output.parent.iterdir()) == [".result.json.sha256", "result.json"]


def test_an_interrupted_stage_resumes_after_its_last_epoch_with_the_same_bytes(job, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    whole, resumed = job(name="whole"), job()
    stage.run(whole, CPU, 0)
    with monkeypatch.context() as patch:
        patch.setattr(stage, "detect_objects", stop)
        with pytest.raises(KeyboardInterrupt):
            stage.run(resumed, CPU, 0)
    assert resumed.output.with_suffix(".state.pt").exists()
    with monkeypatch.context() as patch:  # the two epochs are done, so no batch is asked for again
        patch.setattr(DetectionBatches, "__getitem__", None)
        stage.run(resumed, CPU, 0)
    assert resumed.output.read_bytes() == whole.output.read_bytes()
    assert not resumed.output.with_suffix(".state.pt").exists()


def changed(path, output, change):
    content = json.loads(path.read_text())
    change(content)
    output.write_text(json.dumps(content))
    return output


def test_inputs_that_do_not_fit_are_refused(job, shapes, tmp_path):  # noqa: F811
    def refused(start, made):
        with pytest.raises(BingoError, match=f"^{start}"):
            stage.run(made, CPU, 0)

    refused("detection: .*'mask-rcn'.*'mask-rcnn'", job("mask-rcn"))
    folder, path = shapes["val"]
    other = changed(path, tmp_path / "other.json", lambda content: content["categories"][0].update(name="square"))
    refused(f"{other}: .*{shapes['train'][1]}", job(val=(folder, other)))
    crowds = tmp_path / "crowds.json"
    changed(path, crowds, lambda content: [entry.update(iscrowd=1) for entry in content["annotations"]])
    refused(f"{crowds}: ", job(val=(folder, crowds)))
    spec = Backbone(architecture="mobilenet_v3_large")
    weights = tmp_path / "backbone.safetensors"
    write_tensors(weights, build_backbone(spec).state_dict(), {"backbone": spec.model_dump()})
    refused("detection: ", job(weights=weights))
    shutil.copytree(shapes["train"][0], tmp_path / "images")
    bad = tmp_path / "images/0002.png"
    bad.write_bytes(b"not an image")
    refused(f"{bad}: ", job(train=(bad.parent, shapes["train"][1])))


def test_the_seed_reaches_the_new_weights_the_batches_and_the_identity_of_the_state(job, monkeypatch):
    calls = []

    def train(task, state, *_):
        weight = task.module.roi_heads.box_predictor.cls_score.weight.detach().clone()
        calls.append((weight, task.data.seed, state.identity))

    monkeypatch.setattr(stage, "train", train)
    monkeypatch.setattr(stage, "detect_objects", lambda *_: [])
    for seed in (0, 0, 5):
        stage.run(job(seed=seed), CPU, 0)
    weights, seeds, identities = zip(*calls, strict=True)
    assert seeds == (0, 0, 5)
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
    assert identities[0] == identities[1] != identities[2]
