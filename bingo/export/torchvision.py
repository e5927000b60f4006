"""Export of backbones to torchvision."""

import logging
from pathlib import Path

import torch
import torchvision

from bingo.errors import BingoError
from bingo.export.classifier import with_classifier
from bingo.export.files import require_suffix, write_weights
from bingo.models.checkpoint import read_backbone
from bingo.study.sections import Backbone

log = logging.getLogger(__name__)


def export_torchvision(model: Path, output: Path) -> None:
    """Write a backbone as a state dict that torchvision's network loads strictly:

        network = torchvision.models.resnet18()
        network.load_state_dict(torch.load("resnet18.pth", weights_only=True))

    The classifier of 1,000 classes is zeros (`with_classifier`). To get features, set
    ``network.fc = torch.nn.Identity()``, or ``network.classifier`` for EfficientNet-B0 and MobileNetV3-Large.

    Args:
        model: file of a student's backbone, or of a teacher, whose head is ignored.
        output: ``.pth`` file to write.

    Raises:
        BingoError: the file is missing or damaged, torchvision does not have the network, or ``output`` does not end
            in ``.pth``.
    """
    require_suffix(output, ".pth")
    network, metadata = read_backbone(model, torch.device("cpu"))
    spec = Backbone.model_validate(metadata["backbone"])
    if not in_torchvision(spec):
        raise unsupported_error(model, spec, "torchvision")
    with torch.device("meta"):
        library_state = torchvision.models.get_model(spec.architecture, weights=None).state_dict()
    hidden = "classifier.0" if spec.architecture == "mobilenet_v3_large" else None
    write_weights(output, with_classifier(network.state_dict(), library_state, hidden))
    log.info(
        "%s: load it with torchvision.models.%s().load_state_dict; the classifier is zeros: replace it, or use an "
        "Identity to get features",
        output,
        spec.architecture,
    )


def in_torchvision(spec: Backbone) -> bool:
    """Return whether torchvision has the backbone, apart from the classifier."""
    return spec.width == 1 and spec.stem == "imagenet" and spec.architecture in torchvision.models.list_models()


def unsupported_error(model: Path, spec: Backbone, library: str) -> BingoError:
    """Return the error for a network that a library does not have."""
    width = f" of width {spec.width:g}" if spec.width != 1 else ""
    stem = f" with stem: {spec.stem}" if spec.stem != "imagenet" else ""
    return BingoError(
        f"{model}: is a {spec.architecture}{width}{stem}, which {library} does not support; export it --to onnx, which "
        "contains the network itself"
    )
