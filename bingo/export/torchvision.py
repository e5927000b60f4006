"""Backbones as torchvision's networks load them."""

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
    """Write a backbone as the state dict of torchvision's network of that name, which loads it strictly::

        network = torchvision.models.resnet18()
        network.load_state_dict(torch.load("resnet18.pth", weights_only=True))

    Its classifier of 1,000 classes is zeros (`with_classifier`): with ``network.fc = torch.nn.Identity()``, of
    EfficientNet-B0 and MobileNetV3-Large ``network.classifier``, the network gives the backbone's features.

    Args:
        model: file of a student's backbone, or of a teacher, whose head is left out.
        output: file to write, a ``.pth``.

    Raises:
        BingoError: the file is missing or damaged, torchvision does not build such a network, or ``output`` does not
            end in ``.pth``.
    """
    require_suffix(output, ".pth")
    network, metadata = read_backbone(model, torch.device("cpu"))
    spec = Backbone.model_validate(metadata["backbone"])
    if not in_torchvision(spec):
        raise not_built(model, spec, "torchvision")
    with torch.device("meta"):
        whole = torchvision.models.get_model(spec.architecture, weights=None).state_dict()
    hidden = "classifier.0" if spec.architecture == "mobilenet_v3_large" else None
    write_weights(output, with_classifier(network.state_dict(), whole, hidden))
    log.info(
        "%s: for torchvision.models.%s().load_state_dict; its classifier is zeros: replace it, or make it an Identity "
        "to get features",
        output,
        spec.architecture,
    )


def in_torchvision(spec: Backbone) -> bool:
    """Tell whether torchvision builds a backbone, but for the classifier."""
    return spec.width == 1 and spec.stem == "imagenet" and spec.architecture in torchvision.models.list_models()


def not_built(model: Path, spec: Backbone, library: str) -> BingoError:
    """Return the error that says which network a library does not build, and where to go with it."""
    width = f" of width {spec.width:g}" if spec.width != 1 else ""
    stem = f" with stem: {spec.stem}" if spec.stem != "imagenet" else ""
    return BingoError(
        f"{model}: holds {spec.architecture}{width}{stem}, which {library} does not build; export it --to onnx, which "
        "holds the network itself"
    )
