"""Backbones that return pooled features: torchvision's (ResNets with a width factor and a small stem) and timm's."""

import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn
from torchvision.models import resnet

from bingo.errors import BingoError
from bingo.study.sections import RESNETS, TIMM, Backbone

_NARROW = 16
"""Float32 channels in a CPU's vector register (AVX-512)."""


class SampledConv2d(nn.Conv2d):
    """A strided 1 x 1 convolution, computed as subsampling and a convolution of stride 1.

    Works around a oneDNN bug (torch 2.15): the weight gradient of a narrow strided 1 x 1 convolution writes out of
    bounds in channels-last memory.
    """

    @classmethod
    def of(cls, plain: nn.Conv2d) -> "SampledConv2d":
        """Return a replacement for ``plain`` that shares its weights."""
        with torch.device("meta"):
            sampled = cls(plain.in_channels, plain.out_channels, 1, plain.stride[0], bias=False)
        sampled.weight = plain.weight
        return sampled

    def forward(self, input: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C', H', W')."""
        rows, columns = self.stride
        return F.conv2d(input[:, :, ::rows, ::columns], self.weight, self.bias)


class ResNet(resnet.ResNet):
    """torchvision's ResNet without the classifier. Parameters keep torchvision's names."""

    def __init__(self, spec: Backbone) -> None:
        """Build the network with random weights from torch's global generator."""
        kind, layers = RESNETS[spec.architecture]
        block = getattr(resnet, kind)
        super().__init__(block, layers)
        first = round(64 * spec.width)
        if first != 64:
            # torchvision fixes the base width at 64, so rebuild the stages.
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
        """Map normalised images (B, 3, S, S) to pooled features (B, D)."""
        return super().forward(x)


def build_backbone(spec: Backbone) -> nn.Module:
    """Return the backbone described by ``spec``, in channels-last memory, with random weights.

    It maps normalised images (B, 3, S, S) to pooled features (B, D); its attribute `dim` is D. Parameters have
    torchvision's or timm's names.

    Raises:
        BingoError: it is a timm model, and timm is not installed or has no such model.
    """
    if spec.architecture.startswith(TIMM):
        network = _timm(spec.architecture.removeprefix(TIMM))
    elif spec.architecture in RESNETS:
        network = ResNet(spec)
    else:
        # torchvision's default has stochastic depth; no other backbone here does.
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
    """Return the name prefixes of the classifier's parameters in a timm network; empty for other networks."""
    names = getattr(network, "default_cfg", {}).get("classifier") or ()  # one name or several
    return tuple(f"{name}." for name in ([names] if isinstance(names, str) else names))


def require_size(backbone: nn.Module, size: int, device: torch.device) -> None:
    """Check that a network accepts images of this size. Some timm models accept only one size.

    Args:
        backbone: network on ``device``.
        size: height and width of the images in pixels.
        device: device of the network.

    Raises:
        BingoError: the forward pass fails.
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
        raise BingoError(f"backbone: timm {timm.__version__} has no model '{name}'; timm.list_models() lists them")
    network: nn.Module = timm.create_model(name, pretrained=False, num_classes=0)
    network.dim = getattr(network, "head_hidden_size", network.num_features)  # some models widen after pooling
    return network
