import sys

import pytest
import timm
import torch

from bingo.errors import BingoError
from bingo.export.timm import export_timm


@pytest.mark.parametrize(
    ("architecture", "name"),
    [
        ("resnet18", "network.pth"),
        ("efficientnet_b0", "network.safetensors"),
        ("timm/resnet10t", "network.safetensors"),
        ("timm/mobilenetv3_small_050", "network.safetensors"),
    ],
)
def test_timm_loads_the_file_and_gives_the_features(architecture, name, student, images, same, tmp_path):
    network, path = student(architecture=architecture)
    export_timm(path, tmp_path / name)
    theirs = timm.create_model(architecture.removeprefix("timm/"), checkpoint_path=tmp_path / name).eval()
    assert torch.equal(theirs(images), torch.zeros(2, 1000))
    theirs.reset_classifier(0)
    same(theirs(images), network(images))


def test_timms_mobilenet_gives_the_features_before_its_layer_after_pooling(student, images, same, tmp_path):
    network, path = student(architecture="mobilenet_v3_large")
    export_timm(path, tmp_path / "network.safetensors")
    theirs = timm.create_model("mobilenetv3_large_100", checkpoint_path=tmp_path / "network.safetensors").eval()
    expected = network(images)
    same(theirs.forward_features(images).mean((2, 3)), expected)
    theirs.reset_classifier(0)
    same(theirs(images)[:, :960], torch.nn.functional.hardswish(expected))


@pytest.mark.parametrize(
    ("spec", "named"),
    [
        ({"architecture": "resnet10"}, "resnet10"),
        ({"architecture": "resnet34", "width": 1 / 16}, r"resnet34.*0\.0625"),
        ({"architecture": "resnet18", "width": 1 / 16, "stem": "small"}, "resnet18.*small"),
    ],
)
def test_networks_that_timm_does_not_build_are_refused(spec, named, student, tmp_path):
    _, path = student(**spec)
    with pytest.raises(BingoError, match=f"^{path}: .*{named}.*--to onnx"):
        export_timm(path, tmp_path / "network.safetensors")
    assert not (tmp_path / "network.safetensors").exists()


def test_a_timm_that_computes_something_else_or_is_missing_is_refused(student, monkeypatch, tmp_path):
    _, path = student(architecture="efficientnet_b0")
    create = timm.create_model
    monkeypatch.setattr(timm, "create_model", lambda *name, **options: create(*name, **options, act_layer="relu"))
    with pytest.raises(BingoError, match=r"^--to timm: .*efficientnet_b0"):
        export_timm(path, tmp_path / "network.safetensors")
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(BingoError, match=r"^--to timm: .*\.\[export\]"):
        export_timm(path, tmp_path / "network.safetensors")
