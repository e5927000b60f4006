"""torchvision's ResNets with a width factor and a stem for small images, ending in pooled features."""

import torch
from torch import Tensor, nn
from torchvision.models import resnet

from bingo.config import Backbone

_LAYERS: dict[str, tuple[type[resnet.BasicBlock | resnet.Bottleneck], list[int]]] = {
    "resnet10": (resnet.BasicBlock, [1, 1, 1, 1]),
    "resnet18": (resnet.BasicBlock, [2, 2, 2, 2]),
    "resnet34": (resnet.BasicBlock, [3, 4, 6, 3]),
    "resnet50": (resnet.Bottleneck, [3, 4, 6, 3]),
    "resnet101": (resnet.Bottleneck, [3, 4, 23, 3]),
    "resnet152": (resnet.Bottleneck, [3, 8, 36, 3]),
}


class ResNet(resnet.ResNet):
    """torchvision's ResNet without its classifier; parameters keep torchvision's names."""

    def __init__(self, spec: Backbone) -> None:
        """Build the network with random weights from torch's generator."""
        block, layers = _LAYERS[spec.architecture]
        super().__init__(block, layers)
        first = round(64 * spec.width)
        if first != 64:
            # torchvision fixes the first width at 64, so the stages are built again on another one.
            self.inplanes = first
            self.conv1 = nn.Conv2d(3, first, kernel_size=7, stride=2, padding=3, bias=False)
            self.bn1 = nn.BatchNorm2d(first)
            self.layer1 = self._make_layer(block, first, layers[0])
            self.layer2 = self._make_layer(block, 2 * first, layers[1], stride=2)
            self.layer3 = self._make_layer(block, 4 * first, layers[2], stride=2)
            self.layer4 = self._make_layer(block, 8 * first, layers[3], stride=2)
        if spec.stem == "small":
            self.conv1 = nn.Conv2d(3, first, kernel_size=3, stride=1, padding=1, bias=False)
            self.maxpool = nn.Identity()
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        self.dim: int = 8 * first * block.expansion
        self.fc = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Map normalised images (B, 3, S, S) to pooled features (B, dim)."""
        return super().forward(x)


def build_backbone(spec: Backbone) -> ResNet:
    """Return the backbone that a study describes, in channels-last memory, with random weights."""
    return ResNet(spec).to(memory_format=torch.channels_last)
