"""Build torchvision's detectors on a pretrained backbone."""

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
    """Return a Faster R-CNN or Mask R-CNN in train mode, with all layers of the backbone trainable.

    The feature pyramid uses the ResNet's four stages, batch norm, and a fifth level by pooling. New layers have random
    weights from torch's global generator. Their sizes and all thresholds are torchvision's defaults.

    Args:
        backbone: pretrained ResNet; becomes part of the detector.
        protocol: resizing, anchors, and whether to predict masks.
        classes: number of categories, without the background.
        mean: mean of red, green and blue, for images in [0, 1].
        std: standard deviation of red, green and blue.

    Raises:
        BingoError: the backbone is not a ResNet.
    """
    if not isinstance(backbone, ResNet):
        kind = f"{type(backbone).__module__}.{type(backbone).__name__}"
        raise BingoError(
            f"detection: needs the four stages of resnet10 to resnet152, but the backbone is a {kind}; "
            "remove detection for this network"
        )
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
