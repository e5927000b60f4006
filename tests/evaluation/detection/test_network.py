import pytest
import torch
from torch import nn

from bingo.artifacts.tensors import read_tensors
from bingo.errors import BingoError
from bingo.evaluation.detection.network import build_detector
from bingo.models.backbone import build_backbone
from bingo.models.checkpoint import read_backbone
from bingo.study.protocols import DETECTION_PROTOCOLS
from bingo.study.sections import Backbone

MEAN, STD = [0.1, 0.2, 0.3], [0.4, 0.5, 0.6]
FASTER, MASK = (DETECTION_PROTOCOLS[f"{kind}-rcnn-small"] for kind in ("faster", "mask"))


def build(protocol=FASTER, classes=3, **spec):
    torch.manual_seed(0)
    backbone = build_backbone(Backbone(**(spec or {"architecture": "resnet10", "width": 1 / 16})))
    return build_detector(backbone, protocol, classes, MEAN, STD)


def test_the_pretrained_weights_are_in_the_detector_and_all_of_it_is_trained(resnet):
    backbone, _ = read_backbone(resnet, torch.device("cpu"))
    assert not any(parameter.requires_grad for parameter in backbone.parameters())
    detector = build_detector(backbone, MASK, 3, MEAN, STD)
    weights, _ = read_tensors(resnet)
    body = detector.backbone.body.state_dict()
    assert set(body) == set(weights)
    assert all(torch.equal(body[name], weights[name]) for name in weights)
    assert all(parameter.requires_grad for parameter in detector.parameters())
    assert detector.training
    norms = [module for module in detector.backbone.modules() if isinstance(module, nn.BatchNorm2d)]
    assert len(norms) == 12 + 8  # of the ResNet-10; of the pyramid, one after each convolution
    assert all(norm.training and norm.track_running_stats for norm in norms)


@pytest.mark.parametrize(
    ("spec", "strides"),
    [
        ({"architecture": "resnet18", "width": 1 / 16}, [4, 8, 16, 32, 64]),
        ({"architecture": "resnet50", "width": 1 / 16}, [4, 8, 16, 32, 64]),
        ({"architecture": "resnet10", "width": 1 / 8, "stem": "small"}, [1, 2, 4, 8, 16]),
    ],
)
def test_the_pyramid_stands_on_the_four_stages_and_has_a_fifth_level(spec, strides):
    detector = build(**spec)
    with torch.no_grad():
        levels = detector.backbone(torch.zeros(2, 3, 64, 128))
    assert list(levels) == ["0", "1", "2", "3", "pool"]
    assert [tuple(level.shape) for level in levels.values()] == [(2, 256, 64 // s, 128 // s) for s in strides]


def test_images_are_resized_and_normalised_as_the_protocol_and_the_study_say():
    detector = build()
    wide = torch.tensor(MEAN)[:, None, None].expand(3, 64, 96)
    long = torch.full((3, 40, 200), 1.0)
    batch, _ = detector.transform([wide, long])
    assert batch.image_sizes == [(128, 192), (51, 256)]
    assert batch.tensors[0, :, :128, :192].abs().max() < 1e-6
    expected = (1 - torch.tensor(MEAN)) / torch.tensor(STD)
    assert torch.allclose(batch.tensors[1, :, :51].mean(dim=(1, 2)), expected)


def test_classes_get_an_output_each_beside_the_background():
    faster, mask = build(FASTER, classes=5), build(MASK, classes=5)
    assert faster.roi_heads.box_predictor.cls_score.out_features == 6
    assert not faster.roi_heads.has_mask()
    assert mask.roi_heads.mask_predictor.mask_fcn_logits.out_channels == 6


def test_a_network_without_four_stages_is_refused():
    for architecture in ("mobilenet_v3_large", "timm/resnet10t"):
        with pytest.raises(BingoError, match=r"^detection: .*(MobileNetV3|timm.*ResNet)"):
            build(architecture=architecture)
