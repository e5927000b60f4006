"""Networks as other projects build them, and files as they write them. Nothing here uses bingo."""

import argparse
from itertools import pairwise

import torch
from torch import nn
from torchvision.models.resnet import BasicBlock, Bottleneck


class PaddedResNet(nn.Module):
    """SwAV's: a layer of zeros around the image and less padding in the first convolution; any width."""

    def __init__(self, block, layers, width=64, stem=7):
        super().__init__()
        self.inplanes = width
        self.padding = nn.ConstantPad2d(1, 0.0)
        self.conv1 = nn.Conv2d(3, width, stem, stride=2 if stem == 7 else 1, padding=stem // 2 - 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU()
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1) if stem == 7 else nn.Identity()
        self.layer1 = self._stage(block, width, layers[0], 1)
        self.layer2 = self._stage(block, 2 * width, layers[1], 2)
        self.layer3 = self._stage(block, 4 * width, layers[2], 2)
        self.layer4 = self._stage(block, 8 * width, layers[3], 2)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Identity()

    def _stage(self, block, planes, count, stride):
        width = planes * block.expansion
        downsample = None
        if stride != 1 or self.inplanes != width:
            downsample = nn.Sequential(
                nn.Conv2d(self.inplanes, width, 1, stride=stride, bias=False), nn.BatchNorm2d(width)
            )
        first = block(self.inplanes, planes, stride, downsample)
        self.inplanes = width
        return nn.Sequential(first, *(block(width, planes) for _ in range(count - 1)))

    def features(self, x):
        x = self.maxpool(self.relu(self.bn1(self.conv1(self.padding(x)))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.avgpool(x).flatten(1)

    def forward(self, x):
        return self.fc(self.features(x))


def small18(width=8, **options):
    """A ResNet-18 of 8 channels in its first stage: 64 features."""
    return settled(PaddedResNet(BasicBlock, [2, 2, 2, 2], width, **options))


def small50(width=4):
    """A ResNet-50 of 4 channels in its first stage: 128 features."""
    return settled(PaddedResNet(Bottleneck, [3, 4, 6, 3], width))


def settled(network):
    """Give every batch-norm the statistics and scales of a trained network; return it in eval mode."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
            module.num_batches_tracked.fill_(7)
            if module.affine:
                nn.init.uniform_(module.weight, 0.5, 1.5)
                nn.init.normal_(module.bias, std=0.1)
    return network.eval()


def mlp(*widths, norm=False, activation=nn.ReLU):
    """Linear layers of these widths, an activation and on request a batch-norm between them."""
    layers = []
    for before, after in pairwise(widths):
        layers += [nn.Linear(before, after), *([nn.BatchNorm1d(after)] if norm else []), activation()]
    return settled(nn.Sequential(*layers[: -2 if norm else -1]))


def under(prefix, network):
    """The state dict of a network, or such a dict, with a prefix before every name."""
    state = network if isinstance(network, dict) else network.state_dict()
    return {prefix + name: value for name, value in state.items()}


def encoder(prefix, backbone, head, place="fc."):
    """The state dict of a network whose head is a part of it, as MoCo and its followers write it."""
    return {**under(prefix, backbone), **under(prefix + place, head)}


def queue(size=32, dim=16):
    return {"queue": torch.randn(dim, size), "queue_ptr": torch.zeros(1, dtype=torch.long)}


def training(state, **more):
    """What training scripts save beside a state dict."""
    optimizer = {"state": {0: {"momentum_buffer": torch.randn(3)}}, "param_groups": [{"lr": 0.03, "params": [0]}]}
    return {"epoch": 200, "arch": "resnet50", "state_dict": state, "optimizer": optimizer, **more}


class DinoHead(nn.Module):
    """DINO's head, whose last layer makes prototypes of the bottleneck."""

    def __init__(self, features, norm=False, modern=False):
        super().__init__()
        self.mlp = mlp(features, 24, 24, 16, norm=norm, activation=nn.GELU)
        wrap = nn.utils.parametrizations.weight_norm if modern else nn.utils.weight_norm
        self.last_layer = wrap(nn.Linear(16, 40, bias=False))


def settings():
    return argparse.Namespace(arch="resnet50", lr=0.03, crops=[2, 6])
