"""Backbones that end in pooled features: torchvision's, some with a width factor and a small stem, and timm's."""

import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn
from torchvision.models import resnet

from bingo.errors import BingoError
from bingo.study.sections import RESNETS, TIMM, Backbone

_NARROW = 16
"""Channels that fill a vector register of a CPU."""


class SampledConv2d(nn.Conv2d):
    """A strided 1 x 1 convolution, computed as one of stride 1 on the pixels that it looks at.

    oneDNN's gradient of the weights of a narrow one writes beyond its memory, in channels-last memory (torch 2.15).
    """

    @classmethod
    def of(cls, plain: nn.Conv2d) -> "SampledConv2d":
        """Take a convolution's place and weights."""
        with torch.device("meta"):
            sampled = cls(plain.in_channels, plain.out_channels, 1, plain.stride[0], bias=False)
        sampled.weight = plain.weight
        return sampled

    def forward(self, input: Tensor) -> Tensor:
        """Map (B, C, H, W) as the convolution does."""
        rows, columns = self.stride
        return F.conv2d(input[:, :, ::rows, ::columns], self.weight, self.bias)


class ResNet(resnet.ResNet):
    """torchvision's ResNet without its classifier; parameters keep torchvision's names."""

    def __init__(self, spec: Backbone) -> None:
        """Build the network with random weights from torch's generator."""
        kind, layers = RESNETS[spec.architecture]
        block = getattr(resnet, kind)
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
        for stage in (self.layer2, self.layer3, self.layer4):
            plain = stage[0].downsample[0]
            if plain.in_channels < _NARROW:
                stage[0].downsample[0] = SampledConv2d.of(plain)
        self.dim: int = 8 * first * block.expansion
        self.fc = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Map normalised images (B, 3, S, S) to pooled features (B, dim)."""
        return super().forward(x)


def build_backbone(spec: Backbone) -> nn.Module:
    """Return the backbone that a study describes, in channels-last memory, with random weights.

    It maps normalised images (B, 3, S, S) to pooled features (B, dim), where `dim` is its attribute; its parameters
    have torchvision's or timm's names.

    Raises:
        BingoError: it is timm's, and timm is not installed or does not know it.
    """
    if spec.architecture.startswith(TIMM):
        network = _timm(spec.architecture.removeprefix(TIMM))
    elif spec.architecture in RESNETS:
        network = ResNet(spec)
    else:
        # No stochastic depth, as timm has it by default: no other network here has any.
        options = {"stochastic_depth_prob": 0.0} if spec.architecture == "efficientnet_b0" else {}
        network = torchvision.models.get_model(spec.architecture, weights=None, **options)
        first = network.classifier[0] if isinstance(network.classifier[0], nn.Linear) else network.classifier[-1]
        network.dim = first.in_features  # 1280 for EfficientNet-B0, 960 for MobileNetV3-Large
        network.classifier = nn.Identity()
    return network.to(memory_format=torch.channels_last)


def feature_width(backbone: nn.Module) -> int:
    """Return the width of a backbone's pooled features."""
    return int(backbone.dim)  # type: ignore[arg-type]


def classifier_prefixes(network: nn.Module) -> tuple[str, ...]:
    """Return with what the names of a timm network's classifier begin, by its configuration; nothing for others."""
    named = getattr(network, "default_cfg", {}).get("classifier") or ()  # a name, or several
    return tuple(f"{name}." for name in ([named] if isinstance(named, str) else named))


def require_size(backbone: nn.Module, size: int, device: torch.device) -> None:
    """Refuse images that a network cannot take; some of timm's take one size alone.

    Args:
        backbone: a network on ``device``.
        size: side of the images, in pixels.
        device: where the network is.

    Raises:
        BingoError: the network fails on such an image.
    """
    training = backbone.training
    backbone.eval()
    try:
        with torch.no_grad():
            backbone(torch.zeros(1, 3, size, size, device=device))
    except torch.OutOfMemoryError:
        raise
    except (AssertionError, RuntimeError) as error:
        reason = " ".join(str(error).split()).rstrip(".")
        raise BingoError(
            f"backbone: cannot take images of {size} px ({reason}); set data.preprocessing.size"
        ) from error
    finally:
        backbone.train(training)


def _timm(name: str) -> nn.Module:
    try:
        import timm
    except ImportError as error:
        raise BingoError(f"backbone: {TIMM}{name} needs timm; pip install timm") from error
    if not timm.is_model(name):
        raise BingoError(f"backbone: timm {timm.__version__} has no model '{name}'; timm.list_models() names them")
    network: nn.Module = timm.create_model(name, pretrained=False, num_classes=0)
    network.dim = getattr(network, "head_hidden_size", network.num_features)  # some widen after pooling
    return network
