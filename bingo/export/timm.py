"""Backbones as timm's networks load them."""

import logging
from collections.abc import Mapping
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor, nn

from bingo.errors import BingoError
from bingo.export.classifier import with_classifier
from bingo.export.files import require_suffix, write_weights
from bingo.export.packages import require_packages
from bingo.export.torchvision import in_torchvision, not_built
from bingo.models.backbone import classifier_prefixes
from bingo.models.checkpoint import read_backbone
from bingo.study.sections import TIMM, Backbone

log = logging.getLogger(__name__)

_NAMES = {"mobilenet_v3_large": "mobilenetv3_large_100"}
"""Networks of torchvision's that timm calls otherwise."""


def export_timm(model: Path, output: Path) -> None:
    """Write a backbone as the state dict of timm's network, which loads it strictly::

        network = timm.create_model("resnet18", checkpoint_path="resnet18.safetensors")
        network.reset_classifier(0)
        features = network(images)

    Its classifier is zeros (`with_classifier`). timm's MobileNetV3 has a layer after pooling that the backbone has not:
    there, features are ``network.forward_features(images).mean((2, 3))``.

    Args:
        model: file of a student's backbone, or of a teacher, whose head is left out.
        output: file to write, a ``.safetensors`` or a ``.pth``.

    Raises:
        BingoError: timm is not installed, the file is missing or damaged, timm does not build such a network, or
            ``output`` has another ending.
    """
    require_suffix(output, ".safetensors", ".pth")
    require_packages("timm", "timm")
    import timm

    network, metadata = read_backbone(model, torch.device("cpu"))
    spec = Backbone.model_validate(metadata["backbone"])
    name = timm_name(spec)
    if name is None:
        raise not_built(model, spec, "timm")
    backbone = timm_weights(network, spec, name)
    with torch.device("meta"):
        whole = timm.create_model(name)
    hidden = None if forward_gives_features(spec) else "conv_head"
    classifier = (*classifier_prefixes(whole), *([f"{hidden}."] if hidden else []))
    left = [entry for entry in whole.state_dict() if entry not in backbone and not entry.startswith(classifier)]
    if left or backbone.keys() - whole.state_dict().keys():
        raise BingoError(
            f"{model}: holds timm's {name} without its classifier, which differs by more than that; export it "
            "--to huggingface, which timm loads too"
        )
    write_weights(output, with_classifier(backbone, whole.state_dict(), hidden))
    features = "forward_features(images).mean((2, 3))" if hidden else "reset_classifier(0)"
    log.info(
        "%s: for timm.create_model('%s', checkpoint_path=...); its classifier is zeros: %s gives features",
        output,
        name,
        features,
    )


def timm_name(spec: Backbone) -> str | None:
    """Return what timm calls a backbone, None if it does not build it."""
    if spec.architecture.startswith(TIMM):
        return spec.architecture.removeprefix(TIMM)
    return _NAMES.get(spec.architecture, spec.architecture) if in_torchvision(spec) else None


def forward_gives_features(spec: Backbone) -> bool:
    """Tell whether timm's network without classifier gives the backbone's features: MobileNetV3 has a layer more."""
    return spec.architecture not in _NAMES


def timm_weights(network: nn.Module, spec: Backbone, name: str) -> dict[str, Tensor]:
    """Return a backbone's weights under the names of timm's network.

    ResNets have the same names in torchvision and timm. EfficientNet and MobileNetV3 have not, but both list their
    layers in the order in which they compute, so that the n-th entry of one is the n-th of the other. What batch-norm
    adds to the variance is 1e-3 in torchvision's MobileNetV3 and 1e-5 in timm's; the variances make up for it.

    Args:
        network: the backbone, in eval mode.
        spec: what it is.
        name: timm's name of it.

    Raises:
        BingoError: the installed timm computes something else with these weights.
    """
    import timm

    state = network.state_dict()
    if spec.architecture.startswith(TIMM):
        return state
    theirs = timm.create_model(name, num_classes=0).eval().to(memory_format=torch.channels_last)
    shared = dict(islice(theirs.state_dict().items(), len(state)))  # without the layer after pooling
    weights = dict(zip(shared, state.values(), strict=True))
    for (layer, norm), own in zip(_batch_norms(theirs), _batch_norms(network), strict=True):
        weights[f"{layer}.running_var"] = weights[f"{layer}.running_var"] + (own[1].eps - norm.eps)
    if not _same_features(network, theirs, weights):
        raise BingoError(
            f"--to timm: timm {timm.__version__} has another {name} than the one that is known; "
            "pip install '.[export]' in the checkout"
        )
    return weights


def _batch_norms(network: nn.Module) -> list[tuple[str, nn.BatchNorm2d]]:
    return [(name, module) for name, module in network.named_modules() if isinstance(module, nn.BatchNorm2d)]


@torch.no_grad()
def _same_features(network: nn.Module, theirs: nn.Module, weights: Mapping[str, Tensor]) -> bool:
    """Tell whether timm's network computes the same with these weights, on an image of noise."""
    try:
        theirs.load_state_dict({**theirs.state_dict(), **weights})
    except RuntimeError:  # other shapes
        return False
    images = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    expected = network(images)
    found = theirs.forward_features(images).mean((2, 3))  # type: ignore[operator]
    return bool((found - expected).abs().max() <= 1e-3 * expected.abs().max())
