import pytest
import torch
import torch.nn.functional as F
from torch import nn

from bingo.models.backbone import build_backbone
from bingo.models.batch_norm_folding import fold_batch_norm
from bingo.study.sections import Backbone


def used(network):
    """Give batch-norms statistics and weights as training does."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            for values in (module.weight, module.running_var):
                nn.init.uniform_(values, 0.5, 2)
            for values in (module.bias, module.running_mean):
                nn.init.normal_(values)
    return network.eval()


def norms(network):
    return sum(isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d) for module in network.modules())


@pytest.mark.parametrize(
    ("architecture", "width"),
    [("resnet18", 1 / 16), ("resnet50", 0.25), ("efficientnet_b0", 1), ("mobilenet_v3_large", 1)],
)
def test_a_folded_network_computes_the_same_without_batch_norm(architecture, width):
    torch.manual_seed(0)
    stem = "small" if architecture.startswith("resnet") else "imagenet"
    backbone = build_backbone(Backbone(architecture=architecture, width=width, stem=stem))
    network = used(nn.Sequential(backbone, nn.Sequential(nn.Linear(backbone.dim, 16), nn.BatchNorm1d(16), nn.ReLU())))
    images = torch.randn(3, 3, 32, 32).contiguous(memory_format=torch.channels_last)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with torch.inference_mode():
        expected, found = network(images), fold_batch_norm(network)(images)
    assert norms(fold_batch_norm(network)) == 0 < norms(network)
    assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    kernels = [module.weight for module in fold_batch_norm(backbone).modules() if isinstance(module, nn.Conv2d)]
    assert all(kernel.is_contiguous(memory_format=torch.channels_last) for kernel in kernels)


def test_a_layer_that_occurs_twice_stays_apart_from_what_follows_it():
    act = nn.Tanh()
    network = used(nn.Sequential(act, nn.Conv2d(3, 4, 1), act, nn.BatchNorm2d(4)))
    images = torch.randn(2, 3, 5, 5)
    assert torch.equal(fold_batch_norm(network)(images), network(images))


def test_batch_norm_in_training_mode_and_in_front_of_a_convolution_stays():
    training = used(nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))).train()
    before = used(nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 4, 1)))
    assert norms(fold_batch_norm(training)) == norms(fold_batch_norm(before)) == 1


@pytest.mark.parametrize("architecture", ["resnet18"])
def test_in_bfloat16_a_folded_teacher_is_no_further_from_float32(architecture):
    torch.manual_seed(0)
    backbone = used(build_backbone(Backbone(architecture=architecture, width=0.25, stem="small")))
    images = torch.randn(32, 3, 32, 32).contiguous(memory_format=torch.channels_last)

    def units(network, enabled):
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled):
            return F.normalize(network(images).float(), dim=1)

    exact = units(backbone, False)
    plain, fast = (
        (units(network, True) - exact).square().mean().sqrt() for network in (backbone, fold_batch_norm(backbone))
    )
    assert fast <= 1.5 * plain
