import pytest
import torch
import torchvision
from torch import nn

from bingo.errors import BingoError
from bingo.export.torchvision import export_torchvision

CLASSIFIERS = {"resnet18": "fc", "resnet50": "fc", "efficientnet_b0": "classifier", "mobilenet_v3_large": "classifier"}


@pytest.mark.parametrize("architecture", CLASSIFIERS)
def test_torchvisions_network_loads_it_strictly_and_gives_the_features(architecture, student, images, same, tmp_path):
    network, path = student(architecture=architecture)
    output = tmp_path / "exports" / "network.pth"
    export_torchvision(path, output)
    theirs = torchvision.models.get_model(architecture).eval()
    theirs.load_state_dict(torch.load(output, weights_only=True))
    assert torch.equal(theirs(images), torch.zeros(2, 1000))
    setattr(theirs, CLASSIFIERS[architecture], nn.Identity())
    same(theirs(images), network(images))


def test_the_classifiers_of_mobilenet_can_learn(student, images, tmp_path):
    _, path = student(architecture="mobilenet_v3_large")
    export_torchvision(path, tmp_path / "network.pth")
    theirs = torchvision.models.mobilenet_v3_large().eval()
    theirs.load_state_dict(torch.load(tmp_path / "network.pth", weights_only=True))
    theirs(images)[:, 0].sum().backward()
    assert theirs.classifier[3].weight.grad.abs().sum() > 0


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ({"architecture": "resnet10"}, "holds resnet10, which torchvision does not build"),
        ({"architecture": "resnet18", "width": 1 / 16}, "holds resnet18 of width 0.0625, which"),
        ({"architecture": "resnet18", "stem": "small"}, "holds resnet18 with stem: small, which"),
        ({"architecture": "timm/resnet10t"}, "holds timm/resnet10t, which"),
    ],
)
def test_what_torchvision_does_not_build_is_refused(spec, said, student, tmp_path):
    _, path = student(**spec)
    with pytest.raises(BingoError) as caught:
        export_torchvision(path, tmp_path / "network.pth")
    assert str(caught.value).startswith(f"{path}: {said}")
    assert str(caught.value).endswith("export it --to onnx, which holds the network itself")
    assert not (tmp_path / "network.pth").exists()


def test_another_ending_is_refused(student, tmp_path):
    _, path = student(architecture="resnet18")
    with pytest.raises(BingoError, match=r"network\.onnx: readers of this format expect names that end in \.pth"):
        export_torchvision(path, tmp_path / "network.onnx")
