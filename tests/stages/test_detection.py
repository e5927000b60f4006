import hashlib
import json
import shutil
from dataclasses import replace

import pytest
import torch

from bingo.artifacts.tensors import network_digest, read_metadata, write_tensors
from bingo.errors import BingoError
from bingo.evaluation.detection.annotations import read_annotations
from bingo.evaluation.detection.coco import CocoImages
from bingo.models.backbone import build_backbone
from bingo.stages import detection as stage
from bingo.study.jobs import DetectionJob
from bingo.study.protocols import DETECTION_PROTOCOLS
from bingo.study.sections import Backbone, NetworkInput

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def short(monkeypatch, narrow, tiny):
    """Register two protocols of two epochs on small images."""
    protocol = replace(tiny, epochs=2, lr=0.005)
    monkeypatch.setitem(DETECTION_PROTOCOLS, "short-mask", protocol)
    monkeypatch.setitem(DETECTION_PROTOCOLS, "short-faster", replace(protocol, masks=False))


@pytest.fixture
def job(shapes, model, tmp_path):
    """The job of measuring the backbone on the generated shapes."""

    def make(protocol="short-mask", seed=0, val=shapes["val"], train=shapes["train"], weights=model, name="result"):
        return DetectionJob(
            preprocessing=NetworkInput(size=32, mean=[0.4] * 3, std=[0.25] * 3),
            model="bingo",
            protocol=protocol,
            target="shapes",
            seed=seed,
            images=train[0],
            annotations=train[1],
            val_images=val[0],
            val_annotations=val[1],
            weights=weights,
            output=tmp_path / "deep" / f"{name}.json",
        )

    return make


def run(job):
    """Run the stage; return the result."""
    stage.run(job, CPU, 0)
    return json.loads(job.output.read_text())


@pytest.mark.parametrize(("protocol", "kinds"), [("short-faster", ["box"]), ("short-mask", ["box", "mask"])])
def test_the_result_says_what_was_measured_and_on_what(protocol, kinds, job, shapes, model, tmp_path):
    result = run(job(protocol, seed=4))
    assert (result["protocol"], result["model"], result["seed"]) == (f"shapes-{protocol}", "bingo", 4)
    assert set(result["metrics"]) == {f"{kind}_ap{at}" for kind in kinds for at in ("", "50", "75")}
    assert all(0 <= value <= 100 for value in result["metrics"].values())
    provenance = result["provenance"]
    assert provenance["inputs"] == {
        "train": hashlib.sha256(shapes["train"][1].read_bytes()).hexdigest(),
        "val": hashlib.sha256(shapes["val"][1].read_bytes()).hexdigest(),
        "model": network_digest(read_metadata(model)),
    }
    assert (provenance["stage"], provenance["version"], provenance["device"]) == ("detection", 2, "cpu")
    assert provenance["settings"] == job(protocol, seed=4).settings
    assert sorted(path.name for path in (tmp_path / "deep").iterdir()) == [".result.json.sha256", "result.json"]


def test_a_killed_stage_goes_on_from_its_last_epoch_and_ends_with_the_same_bytes(job, monkeypatch, tmp_path):
    run(job("short-faster", name="whole"))
    states = []

    def stop(*arguments):
        states.append((tmp_path / "deep/result.state.pt").exists())
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(stage, "detect_objects", stop)
        with pytest.raises(KeyboardInterrupt):
            run(job("short-faster"))
    assert states == [True]
    with monkeypatch.context() as patch:  # the two epochs are done, so no batch is asked for again
        patch.setattr("bingo.evaluation.detection.batches.DetectionBatches.__getitem__", None)
        run(job("short-faster"))
    whole, resumed = (tmp_path / "deep" / f"{name}.json" for name in ("whole", "result"))
    assert resumed.read_bytes() == whole.read_bytes()
    assert not (tmp_path / "deep/result.state.pt").exists()


def test_a_state_of_another_seed_is_not_gone_on_from(job, monkeypatch, caplog):
    with monkeypatch.context() as patch:
        patch.setattr(stage, "detect_objects", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            run(job("short-faster", seed=1))
    run(job("short-faster", seed=2))
    assert "belongs to other settings or inputs; training starts from the beginning" in caplog.text


def test_an_unknown_protocol_is_refused(job):
    with pytest.raises(BingoError, match=r"no protocol 'mask-rcn'; did you mean 'mask-rcnn'\?"):
        run(job("mask-rcn"))


def test_categories_must_be_the_same(job, shapes, tmp_path):
    folder, path = shapes["val"]
    changed = json.loads(path.read_text())
    changed["categories"][0]["name"] = "square"
    (tmp_path / "changed.json").write_text(json.dumps(changed))
    with pytest.raises(BingoError, match=r"changed\.json: its categories are not those of .*annotations\.json"):
        run(job(val=(folder, tmp_path / "changed.json")))


def test_a_validation_set_of_crowds_is_refused_before_training(job, shapes, tmp_path):
    folder, path = shapes["val"]
    crowds = json.loads(path.read_text())
    for entry in crowds["annotations"]:
        entry["iscrowd"] = 1
    (tmp_path / "crowds.json").write_text(json.dumps(crowds))
    with pytest.raises(BingoError, match=r"crowds\.json: has no object to be found"):
        run(job(val=(folder, tmp_path / "crowds.json")))


def test_a_network_that_is_no_resnet_is_refused(job, tmp_path):
    spec = Backbone(architecture="mobilenet_v3_large")
    path = tmp_path / "backbone.safetensors"
    write_tensors(path, build_backbone(spec).state_dict(), {"backbone": spec.model_dump()})
    with pytest.raises(BingoError, match="four stages"):
        run(job(weights=path))


def test_a_bad_training_image_ends_the_stage_with_a_line(job, shapes, tmp_path):
    folder, path = shapes["train"]
    shutil.copytree(folder, tmp_path / "images")
    (tmp_path / "images/0002.png").write_bytes(b"no image")
    with pytest.raises(BingoError, match=r"0002\.png: cannot be decoded"):
        run(job("short-faster", train=(tmp_path / "images", path)))


def test_the_seed_reaches_new_weights_order_and_flips(job, tiny, shapes, monkeypatch):
    calls = []

    def train(task, *_):
        calls.append((task.module.roi_heads.box_predictor.cls_score.weight.detach().clone(), task.data.seed))

    monkeypatch.setattr(stage, "train", train)
    monkeypatch.setattr(stage, "detect_objects", lambda *_: [])
    train_set, val_set = (CocoImages(f, read_annotations(p, True)) for f, p in (shapes["train"], shapes["val"]))
    for seed in (0, 0, 5):
        stage.measure(job(seed=seed), tiny, train_set, val_set, CPU, 0)
    assert [seed for _, seed in calls] == [0, 0, 5]
    assert torch.equal(calls[0][0], calls[1][0])
    assert not torch.equal(calls[0][0], calls[2][0])
