import pytest
import torch
import torchvision
from torch import nn

from bingo.errors import BingoError
from bingo.export.torchvision import export_torchvision


@pytest.mark.parametrize(
    ("architecture", "classifier"),
    [
        ("resnet18", "fc"),
        pytest.param("resnet50", "fc", marks=pytest.mark.slow),
        ("efficientnet_b0", "classifier"),
        ("mobilenet_v3_large", "classifier"),
    ],
)
def test_torchvision_loads_the_file_strictly_and_gives_the_features(
    architecture, classifier, student, images, same, tmp_path
):
    network, path = student(architecture=architecture)
    output = tmp_path / "exports" / "network.pth"
    export_torchvision(path, output)
    theirs = torchvision.models.get_model(architecture).eval()
    theirs.load_state_dict(torch.load(output, weights_only=True))
    assert torch.equal(theirs(images), torch.zeros(2, 1000))
    if architecture == "mobilenet_v3_large":  # whose classifier has a hidden layer, and can learn
        theirs(images)[:, 0].sum().backward()
        assert theirs.classifier[3].weight.grad.abs().sum() > 0
    setattr(theirs, classifier, nn.Identity())
    same(theirs(images), network(images))


@pytest.mark.parametrize(
    ("spec", "named"),
    [
        ({"architecture": "resnet10"}, "resnet10"),
        ({"architecture": "resnet18", "width": 1 / 16}, r"resnet18.*0\.0625"),
        ({"architecture": "resnet18", "width": 1 / 16, "stem": "small"}, "resnet18.*small"),
        ({"architecture": "timm/resnet10t"}, "timm/resnet10t"),
    ],
)
def test_networks_that_torchvision_does_not_build_are_refused(spec, named, student, tmp_path):
    _, path = student(**spec)
    with pytest.raises(BingoError, match=f"^{path}: .*{named}.*--to onnx"):
        export_torchvision(path, tmp_path / "network.pth")
    with pytest.raises(BingoError, match=rf"^{tmp_path / 'network.onnx'}: .*\.pth"):
        export_torchvision(path, tmp_path / "network.onnx")
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
