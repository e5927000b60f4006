import sys

import pytest
import timm
import torch

from bingo.errors import BingoError
from bingo.export.timm import export_timm

NAMES = {
    "resnet18": "resnet18",
    "resnet50": "resnet50",
    "efficientnet_b0": "efficientnet_b0",
    "timm/resnet10t": "resnet10t",
    "timm/mobilenetv3_small_050": "mobilenetv3_small_050",
}


@pytest.mark.parametrize(
    ("architecture", "suffix"), [*((name, ".safetensors") for name in NAMES), ("resnet18", ".pth")]
)
def test_timm_loads_it_and_gives_the_features(architecture, suffix, student, images, same, tmp_path):
    network, path = student(architecture=architecture)
    output = tmp_path / f"network{suffix}"
    export_timm(path, output)
    theirs = timm.create_model(NAMES[architecture], checkpoint_path=output).eval()
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
    passed_on = torch.nn.functional.hardswish(expected)
    same(theirs(images)[:, :960], passed_on)


@pytest.mark.parametrize(
    "spec",
    [
        {"architecture": "resnet10"},
        {"architecture": "resnet34", "width": 1 / 16},
        {"architecture": "resnet18", "stem": "small"},
    ],
)
def test_what_timm_does_not_build_is_refused(spec, student, tmp_path):
    _, path = student(**spec)
    with pytest.raises(BingoError, match="which timm does not build; export it --to onnx"):
        export_timm(path, tmp_path / "network.safetensors")
    assert not (tmp_path / "network.safetensors").exists()


def test_a_timm_that_computes_something_else_is_refused(student, monkeypatch, tmp_path):
    _, path = student(architecture="efficientnet_b0")
    create = timm.create_model
    monkeypatch.setattr(timm, "create_model", lambda *name, **options: create(*name, **options, act_layer="relu"))
    with pytest.raises(BingoError, match=r"^--to timm: timm [\d.]+ has another efficientnet_b0"):
        export_timm(path, tmp_path / "network.safetensors")


def test_without_timm_a_line_says_what_to_install(student, monkeypatch, tmp_path):
    _, path = student(architecture="resnet18")
    monkeypatch.setitem(sys.modules, "timm", None)
    expected = r"^--to timm: needs timm; pip install '\.\[export\]' in the checkout$"
    with pytest.raises(BingoError, match=expected):
        export_timm(path, tmp_path / "network.safetensors")
