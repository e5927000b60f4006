import math
import sys

import pytest
import torch
import torchvision
from torch import nn
from torchvision.models.resnet import BasicBlock

from bingo.errors import BingoError
from bingo.models.backbone import SampledConv2d, build_backbone, feature_width, require_size
from bingo.study.sections import ARCHITECTURES, RESNETS, Backbone

REFERENCES = {
    "resnet10": lambda: torchvision.models.ResNet(BasicBlock, [1, 1, 1, 1]),
    "resnet18": torchvision.models.resnet18,
    "resnet34": torchvision.models.resnet34,
    "resnet50": torchvision.models.resnet50,
    "resnet101": torchvision.models.resnet101,
    "resnet152": torchvision.models.resnet152,
}


def spec(architecture, stem="imagenet", width=1.0):
    return Backbone(architecture=architecture, stem=stem, width=width)


def shapes(state):
    return {name: tuple(value.shape) for name, value in state.items() if not name.startswith("fc.")}


def with_random_statistics(network):
    """Give batch-norm layers statistics and weights that matter."""
    for name, value in network.state_dict().items():
        if name.endswith(("running_var", "running_mean")) or value.ndim == 1:
            value.uniform_(0.5, 1.5)
    return network


@pytest.mark.parametrize("architecture", sorted(REFERENCES))
def test_names_and_shapes_are_torchvisions(architecture):
    assert sorted(REFERENCES) == sorted(RESNETS)
    with torch.device("meta"):
        reference = REFERENCES[architecture]()
        network = build_backbone(spec(architecture))
    assert shapes(network.state_dict()) == shapes(reference.state_dict())
    assert list(network.state_dict()) == [name for name in reference.state_dict() if not name.startswith("fc.")]
    assert network.dim == reference.fc.in_features


@pytest.mark.parametrize("architecture", ["resnet18", "resnet50"])
@torch.inference_mode()
def test_with_the_same_weights_features_are_torchvisions(architecture):
    with torch.device("meta"):
        network = build_backbone(spec(architecture))
        reference = REFERENCES[architecture]()
    torch.manual_seed(0)
    reference.fc = nn.Identity()
    reference = reference.to_empty(device="cpu").eval()
    for value in reference.state_dict().values():
        if value.ndim == 4:
            nn.init.kaiming_normal_(value)
    with_random_statistics(reference)
    network.load_state_dict(reference.state_dict(), assign=True)
    images = torch.randn(2, 3, 40, 48)
    expected = reference(images)
    features = network.eval()(images)
    assert features.shape == (2, network.dim)
    torch.testing.assert_close(features, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))


@pytest.mark.parametrize("architecture", ["resnet18", "resnet50"])
def test_no_narrow_convolution_has_the_gradient_that_writes_beyond_its_memory(architecture):
    with torch.device("meta"):
        network = build_backbone(spec(architecture, width=1 / 32))
    convolutions = [module for module in network.modules() if isinstance(module, nn.Conv2d)]
    strided = [c for c in convolutions if c.kernel_size == (1, 1) and c.stride != (1, 1)]
    assert {type(c) for c in strided if c.in_channels < 16} == {SampledConv2d}
    assert all(type(c) is nn.Conv2d for c in convolutions if c not in strided or c.in_channels >= 16)


@pytest.mark.parametrize("side", [1, 2, 7, 12])
def test_a_sampled_convolution_is_the_strided_one(side):
    torch.manual_seed(0)
    plain = nn.Conv2d(3, 5, 1, 2, bias=False).double()
    images = torch.randn(2, 3, side, side + 3, dtype=torch.float64)
    weighted = torch.randn_like(plain(images))
    found = []
    for convolution in (plain, SampledConv2d.of(plain)):
        seen = images.clone().requires_grad_()
        output = convolution(seen)
        found.append([output, *torch.autograd.grad(output, [seen, convolution.weight], weighted)])
    for ours, expected in zip(found[1], found[0], strict=True):
        torch.testing.assert_close(ours, expected)


@pytest.mark.parametrize("architecture", ["resnet18", "resnet50"])
@pytest.mark.parametrize("width", [0.125, 2.0])
def test_width_scales_the_channels_of_every_layer(architecture, width):
    with torch.device("meta"):
        network = build_backbone(spec(architecture, width=width))
        reference = REFERENCES[architecture]()

    def scaled(name, shape):
        if name == "conv1.weight":
            return (round(width * shape[0]), *shape[1:])
        return tuple(round(width * n) for n in shape[:2]) + shape[2:]

    expected = {name: scaled(name, shape) for name, shape in shapes(reference.state_dict()).items()}
    assert shapes(network.state_dict()) == expected
    assert network.dim == round(width * reference.fc.in_features)


@torch.inference_mode()
@pytest.mark.parametrize(("stem", "sides"), [("small", [32, 32, 16, 8, 4]), ("imagenet", [16, 8, 4, 2, 1])])
def test_small_stem_keeps_the_resolution(stem, sides):
    network = build_backbone(spec("resnet10", stem, 0.0625)).eval()
    seen = []
    for layer in (network.bn1, network.layer1, network.layer2, network.layer3, network.layer4):
        layer.register_forward_hook(lambda _layer, _inputs, output: seen.append(output.shape[-1]))
    network(torch.randn(1, 3, 32, 32))
    assert seen == sides


OTHERS = {
    "efficientnet_b0": (torchvision.models.efficientnet_b0, 1280),
    "mobilenet_v3_large": (torchvision.models.mobilenet_v3_large, 960),
}


@pytest.mark.parametrize("architecture", sorted(OTHERS))
@torch.inference_mode()
def test_the_other_networks_are_torchvisions_up_to_the_classifier(architecture):
    make, width = OTHERS[architecture]
    torch.manual_seed(0)
    reference = with_random_statistics(make(weights=None)).eval()
    network = build_backbone(spec(architecture))
    features = {name: value for name, value in reference.state_dict().items() if not name.startswith("classifier.")}
    assert list(network.state_dict()) == list(features)
    assert shapes(network.state_dict()) == shapes(features)
    network.load_state_dict(features)
    assert network.dim == feature_width(network) == width
    images = torch.randn(2, 3, 40, 48)
    found = network.eval()(images)
    assert found.shape == (2, width)
    reference.classifier = nn.Identity()
    torch.testing.assert_close(found, reference(images), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("architecture", sorted({*ARCHITECTURES} - {"resnet34", "resnet101", "resnet152"}))
def test_every_architecture_trains_into_features_of_its_width(architecture):
    width = 1 / 16 if architecture in RESNETS else 1.0
    network = build_backbone(spec(architecture, width=width)).train()
    features = network(torch.randn(2, 3, 32, 32))
    assert features.shape == (2, feature_width(network))
    features.sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


@pytest.mark.parametrize("name", ["resnet10t", "test_vit"])
def test_a_network_of_timm_gives_features_without_its_classifier(name):
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    network = build_backbone(spec(f"timm/{name}")).eval()
    reference = timm.create_model(name, pretrained=False, num_classes=0)
    assert list(network.state_dict()) == list(reference.state_dict())
    reference.load_state_dict(network.state_dict())
    side = 160 if name == "test_vit" else 64
    images = torch.randn(2, 3, side, side)
    with torch.inference_mode():
        features = network(images)
        torch.testing.assert_close(features, reference.eval()(images), rtol=1e-4, atol=1e-4)
    assert features.shape == (2, feature_width(network))


@pytest.mark.parametrize(("stem", "width"), [("imagenet", 1.0), ("small", 0.5)])
def test_convolutions_start_from_he_normal_weights_and_batch_norm_from_identity(stem, width):
    torch.manual_seed(0)
    network = build_backbone(spec("resnet10", stem, width))
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            fan_out = module.out_channels * module.kernel_size[0] ** 2
            deviation = 5 / math.sqrt(2 * module.weight.numel())  # five standard errors
            assert float(module.weight.detach().std()) * math.sqrt(fan_out / 2) == pytest.approx(1, abs=deviation)
            assert module.weight.is_contiguous(memory_format=torch.channels_last)
        if isinstance(module, nn.BatchNorm2d):
            assert (module.weight == 1).all()
            assert (module.bias == 0).all()


@pytest.mark.parametrize(("installed", "name"), [(True, "resnet999"), (False, "resnet10t")])
def test_a_network_that_timm_does_not_have_is_refused(installed, name, monkeypatch):
    if not installed:
        monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(BingoError, match=rf"^backbone: .*{name}") as caught:
        build_backbone(spec(f"timm/{name}"))
    assert "\n" not in str(caught.value)


class Picky(nn.Module):
    """A network of one size, with a statistic that moves before it fails."""

    def __init__(self, error):
        super().__init__()
        self.norm, self.error = nn.BatchNorm2d(3), error

    def forward(self, images):
        found = self.norm(images)
        if images.shape[-1] != 24:
            raise self.error
        return found


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("kind", [AssertionError, RuntimeError])
def test_a_size_that_a_network_fails_on_is_refused_and_leaves_it_as_it_was(kind, training):
    network = Picky(kind("only 24 px,\n   or nothing.")).train(training)
    generator = torch.get_rng_state()
    require_size(network, 24, torch.device("cpu"))
    with pytest.raises(BingoError, match=r"^backbone: .*\b32 px.*only 24 px.*data\.preprocessing\.size") as caught:
        require_size(network, 32, torch.device("cpu"))
    assert "\n" not in str(caught.value)
    assert [module.training for module in network.modules()] == [training] * 2
    assert int(network.norm.num_batches_tracked) == 0
    assert not network.norm.running_mean.any()
    assert torch.equal(torch.get_rng_state(), generator)
