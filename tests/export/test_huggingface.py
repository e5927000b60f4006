import json

import numpy as np
import onnxruntime
import pytest
import timm
import torch
import torchvision
from huggingface_hub import ModelCard
from PIL import Image
from safetensors.torch import load_file
from torch import nn

import bingo
from bingo.export import huggingface
from bingo.export.huggingface import crop_share, export_huggingface
from bingo.study.sections import Preprocessing

FILES = ["README.md", "config.json", "model.onnx", "model.safetensors"]


@pytest.fixture
def without_onnx(monkeypatch):
    """Leave out the slowest part, which is the same for every network."""
    monkeypatch.setattr(huggingface, "write_onnx", lambda output, *_: output.touch())


def exported(path, tmp_path, resize=None):
    output = tmp_path / "exports" / "folder"
    export_huggingface(path, output, resize)
    assert sorted(entry.name for entry in output.iterdir()) == FILES
    return output


@pytest.mark.parametrize("architecture", ["efficientnet_b0", "timm/resnet10t"])
def test_timm_loads_the_folder_and_gives_the_features(architecture, student, images, same, without_onnx, tmp_path):
    network, path = student(architecture=architecture)
    folder = exported(path, tmp_path)
    theirs = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    same(theirs(images), network(images))
    assert theirs.num_features == network.dim
    same(bingo.load_backbone(folder / "model.safetensors")(images), network(images))
    assert timm.create_model(f"local-dir:{folder}", pretrained=True, num_classes=5)(images).shape == (2, 5)
    assert ModelCard.load(folder / "README.md").data.library_name == "timm"


def test_timm_prepares_images_as_the_pipeline_does(student, without_onnx, tmp_path):
    _, path = student(architecture="timm/resnet10t")
    folder = exported(path, tmp_path, resize=72)
    config = timm.data.resolve_model_data_config(timm.create_model(f"local-dir:{folder}", pretrained=True))
    theirs = timm.data.create_transform(**config)
    ramp = np.add.outer(np.linspace(0, 200, 90), np.linspace(0, 55, 140))
    image = Image.fromarray(np.stack([ramp, ramp[::-1], ramp / 2], 2).astype(np.uint8))
    ours = bingo.load_backbone(folder / "model.safetensors").transform(image)
    levels = (theirs(image) - ours).mul(torch.tensor([0.1, 0.2, 0.3])[:, None, None]).mul(255).abs()
    assert levels.max() <= 1.01


@pytest.mark.parametrize("size", [28, 32, 64, 96, 224, 299])
def test_timm_rounds_the_shorter_side_to_ours(size):
    for resize in range(size, 2 * size):
        assert int(size / crop_share(Preprocessing(size=size, resize=resize))) == resize


def test_torchvision_loads_a_mobilenet_of_the_folder(student, images, same, without_onnx, tmp_path):
    network, path = student(architecture="mobilenet_v3_large")
    folder = exported(path, tmp_path)
    theirs = torchvision.models.mobilenet_v3_large().eval()
    theirs.classifier = nn.Identity()
    theirs.load_state_dict(load_file(folder / "model.safetensors"))
    same(theirs(images), network(images))
    card = (folder / "README.md").read_text()
    assert "torchvision.models.mobilenet_v3_large()" in card
    assert "timm.create_model" not in card


@pytest.mark.slow
def test_a_network_of_no_library_is_loaded_by_onnxruntime(student, images, same, tmp_path):
    spec = {"architecture": "resnet10", "width": 1 / 16, "stem": "small"}
    network, path = student(**spec)
    folder = exported(path, tmp_path)
    session = onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
    same(session.run(None, {"images": images.numpy()})[0], network(images))
    same(bingo.load_backbone(folder / "model.safetensors")(images), network(images))
    config = json.loads((folder / "config.json").read_text())
    assert {name: config[name] for name in spec} == spec
    assert (config["num_features"], config["preprocessing"]["resize"]) == (32, 73)
    assert ModelCard.load(folder / "README.md").data.library_name == "onnx"
