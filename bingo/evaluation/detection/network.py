"""torchvision's detectors on a backbone of ours."""

from torch import nn
from torchvision.models.detection import FasterRCNN, MaskRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import BackboneWithFPN

from bingo.errors import BingoError
from bingo.models.backbone import ResNet, feature_width
from bingo.study.protocols import Detection

_PYRAMID_CHANNELS = 256
_ASPECT_RATIOS = (0.5, 1.0, 2.0)


def build_detector(
    backbone: nn.Module, protocol: Detection, classes: int, mean: list[float], std: list[float]
) -> FasterRCNN:
    """Return a Faster R-CNN or Mask R-CNN, in training mode, that takes over a backbone and trains all of it.

    The pyramid stands on the ResNet's four stages, has batch-norm, and a fifth level by pooling. The new layers have
    random weights from torch's generator; their sizes and all thresholds are torchvision's defaults.

    Args:
        backbone: a pretrained ResNet, whose modules become part of the detector.
        protocol: resizing, anchors, and whether there are masks.
        classes: categories, the background not counted.
        mean: of red, green and blue, in [0, 1].
        std: their standard deviation.

    Raises:
        BingoError: the backbone is no ResNet.
    """
    if not isinstance(backbone, ResNet):
        kind = f"{type(backbone).__module__}.{type(backbone).__name__}"
        raise BingoError(f"detection: stands on the four stages of resnet10 to resnet152, but the backbone is a {kind}")
    backbone.requires_grad_(True)
    last = feature_width(backbone)
    pyramid = BackboneWithFPN(
        backbone,
        return_layers={f"layer{stage + 1}": str(stage) for stage in range(4)},
        in_channels_list=[last // 8, last // 4, last // 2, last],
        out_channels=_PYRAMID_CHANNELS,
        norm_layer=nn.BatchNorm2d,
    )
    anchors = AnchorGenerator(
        sizes=tuple((size,) for size in protocol.anchors), aspect_ratios=(_ASPECT_RATIOS,) * len(protocol.anchors)
    )
    detector = MaskRCNN if protocol.masks else FasterRCNN
    return detector(
        pyramid,
        num_classes=classes + 1,
        min_size=protocol.shorter_side,
        max_size=protocol.longer_side,
        image_mean=mean,
        image_std=std,
        rpn_anchor_generator=anchors,
    ).train()
