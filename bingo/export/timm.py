"""Export of backbones to timm."""

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
from bingo.export.torchvision import in_torchvision, unsupported_error
from bingo.models.backbone import classifier_prefixes
from bingo.models.checkpoint import read_backbone
from bingo.study.sections import TIMM, Backbone

log = logging.getLogger(__name__)

_NAMES = {"mobilenet_v3_large": "mobilenetv3_large_100"}
"""timm's names of torchvision networks, if they differ."""


def export_timm(model: Path, output: Path) -> None:
    """Write a backbone as a state dict that timm's network loads strictly:

        network = timm.create_model("resnet18", checkpoint_path="resnet18.safetensors")
        network.reset_classifier(0)
        features = network(images)

    The classifier is zeros (`with_classifier`). timm's MobileNetV3 has an additional layer after pooling; its features
    are ``network.forward_features(images).mean((2, 3))``.

    Args:
        model: file of a student's backbone, or of a teacher, whose head is ignored.
        output: ``.safetensors`` or ``.pth`` file to write.

    Raises:
        BingoError: timm is not installed, the file is missing or damaged, timm does not have the network, or
            ``output`` has another suffix.
    """
    require_suffix(output, ".safetensors", ".pth")
    require_packages("timm", "timm")
    import timm

    network, metadata = read_backbone(model, torch.device("cpu"))
    spec = Backbone.model_validate(metadata["backbone"])
    name = timm_name(spec)
    if name is None:
        raise unsupported_error(model, spec, "timm")
    backbone = timm_weights(network, spec, name)
    with torch.device("meta"):
        library_network = timm.create_model(name)
    hidden = None if forward_gives_features(spec) else "conv_head"
    classifier = (*classifier_prefixes(library_network), *([f"{hidden}."] if hidden else []))
    missing = [
        entry for entry in library_network.state_dict() if entry not in backbone and not entry.startswith(classifier)
    ]
    if missing or backbone.keys() - library_network.state_dict().keys():
        raise BingoError(
            f"{model}: timm's {name} has other weights with a classifier than without; export it --to huggingface, "
            "which timm also loads"
        )
    write_weights(output, with_classifier(backbone, library_network.state_dict(), hidden))
    features = "forward_features(images).mean((2, 3))" if hidden else "reset_classifier(0)"
    log.info(
        "%s: load it with timm.create_model('%s', checkpoint_path=...); the classifier is zeros, %s gives features",
        output,
        name,
        features,
    )


def timm_name(spec: Backbone) -> str | None:
    """Return timm's name of a backbone; None if timm does not have it."""
    if spec.architecture.startswith(TIMM):
        return spec.architecture.removeprefix(TIMM)
    return _NAMES.get(spec.architecture, spec.architecture) if in_torchvision(spec) else None


def forward_gives_features(spec: Backbone) -> bool:
    """Return whether timm's network without classifier gives the backbone's features; MobileNetV3's does not."""
    return spec.architecture not in _NAMES


def timm_weights(network: nn.Module, spec: Backbone, name: str) -> dict[str, Tensor]:
    """Return a backbone's weights under the names of timm's network.

    ResNets have the same names in torchvision and timm. For EfficientNet and MobileNetV3, both list the layers in
    computation order, so entries are matched by position. Batch norm of MobileNetV3 uses eps 1e-3 in torchvision and
    1e-5 in timm; the difference is added to the running variances.

    Args:
        network: the backbone, in eval mode.
        spec: settings of the backbone.
        name: timm's name of the backbone.

    Raises:
        BingoError: the installed timm gives other features with these weights.
    """
    import timm

    state = network.state_dict()
    if spec.architecture.startswith(TIMM):
        return state
    timm_network = timm.create_model(name, num_classes=0).eval().to(memory_format=torch.channels_last)
    shared = dict(islice(timm_network.state_dict().items(), len(state)))  # without the layer after pooling
    weights = dict(zip(shared, state.values(), strict=True))
    for (layer, timm_norm), (_, norm) in zip(_batch_norms(timm_network), _batch_norms(network), strict=True):
        weights[f"{layer}.running_var"] = weights[f"{layer}.running_var"] + (norm.eps - timm_norm.eps)
    if not _same_features(network, timm_network, weights):
        raise BingoError(
            f"--to timm: {name} of timm {timm.__version__} gives other features; "
            "run pip install '.[export]' in the checkout for the supported version"
        )
    return weights


def _batch_norms(network: nn.Module) -> list[tuple[str, nn.BatchNorm2d]]:
    return [(name, module) for name, module in network.named_modules() if isinstance(module, nn.BatchNorm2d)]


@torch.no_grad()
def _same_features(network: nn.Module, timm_network: nn.Module, weights: Mapping[str, Tensor]) -> bool:
    """Return whether timm's network gives the same features with these weights, for a noise image."""
    try:
        timm_network.load_state_dict({**timm_network.state_dict(), **weights})
    except RuntimeError:  # other shapes
        return False
    images = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    expected = network(images)
    features = timm_network.forward_features(images).mean((2, 3))  # type: ignore[operator]
    return bool((features - expected).abs().max() <= 1e-3 * expected.abs().max())
