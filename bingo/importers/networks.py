"""Infer a network from names and shapes of weights, and load the weights into it."""

from collections.abc import Iterable, Mapping
from itertools import pairwise

import torch
from pydantic import ValidationError
from torch import Tensor, nn

from bingo.errors import BingoError
from bingo.models.backbone import build_backbone
from bingo.models.head import head_from
from bingo.study.sections import OTHER_NETWORKS, RESNETS, Backbone

STEMS = {
    "conv1.weight": tuple(RESNETS),
    "features.0.0.weight": OTHER_NETWORKS,
    "conv_stem.weight": ("timm/efficientnet_b0",),
}
COUNTER = "num_batches_tracked"
TIMM_HINT = "if timm has this network, set architecture: timm/<name>"
# Modules with weights in Sequential(*resnet.children()).
_CHILDREN = {"0": "conv1", "1": "bn1", "4": "layer1", "5": "layer2", "6": "layer3", "7": "layer4"}


class ArchitectureMismatchError(Exception):
    """Weights that do not match a network of this project; the message has the problem and the remedy."""


def shorten_names(names: Iterable[str]) -> str:
    """Return up to eight names for a message, and the number of the others."""
    listed = list(names)
    return ", ".join(listed[:8]) + (f" and {len(listed) - 8} more" if len(listed) > 8 else "")


def name_modules(keys: Mapping[str, str]) -> dict[str, str]:
    """Replace the indices of a ResNet saved as a Sequential by module names; the values of ``keys`` do not change."""
    if "0.weight" not in keys or not all(name[:1].isdigit() for name in keys):
        return dict(keys)
    split = {name: name.partition(".") for name in keys}
    return {_CHILDREN.get(child, child) + dot + rest: keys[name] for name, (child, dot, rest) in split.items()}


def parse_spec(settings: object) -> Backbone:
    """Return the backbone with these ``settings``.

    Raises:
        ArchitectureMismatchError: the settings are invalid.
    """
    try:
        return Backbone.model_validate(settings)
    except ValidationError as error:
        raise ArchitectureMismatchError(
            f"has an unknown backbone ({settings}: {error.errors()[0]['msg']}); {TIMM_HINT}"
        ) from error


def infer_spec(shapes: Mapping[str, torch.Size], architecture: str | None) -> Backbone:
    """Return the backbone with these names and shapes; ``architecture`` replaces the detection except for ResNets.

    Raises:
        ArchitectureMismatchError: no backbone matches.
    """
    if architecture is not None and architecture not in RESNETS:
        return parse_spec({"architecture": architecture})
    stem = next((name for name in STEMS if name in shapes and len(shapes[name]) == 4), None)
    if stem is None:
        raise ArchitectureMismatchError(f"no known network has these names ({shorten_names(shapes)}); {TIMM_HINT}")
    if stem == "conv1.weight":
        return _resnet(shapes)
    specs = [parse_spec({"architecture": name}) for name in STEMS[stem]]
    return max(specs, key=lambda spec: len(shapes.items() & _shapes(blueprint(spec)).items()))


def _resnet(shapes: Mapping[str, torch.Size]) -> Backbone:
    block = "Bottleneck" if "layer1.0.conv3.weight" in shapes else "BasicBlock"
    stages = [f"layer{number}." for number in range(1, 5)]
    layers = [len({name.split(".")[1] for name in shapes if name.startswith(stage)}) for stage in stages]
    name = next((name for name, blocks in RESNETS.items() if blocks == (block, layers)), None)
    if name is None:
        raise ArchitectureMismatchError(f"a ResNet of {layers} blocks ({block}) is not supported; {TIMM_HINT}")
    channels, *_, kernel = shapes["conv1.weight"]
    return parse_spec({"architecture": name, "width": channels / 64, "stem": "small" if kernel == 3 else "imagenet"})


def _shapes(network: nn.Module) -> dict[str, torch.Size]:
    return {name: value.shape for name, value in network.state_dict().items()}


def blueprint(spec: Backbone) -> nn.Module:
    """Return a backbone on the meta device.

    Raises:
        ArchitectureMismatchError: it needs timm, which is not installed or does not have it.
    """
    try:
        with torch.device("meta"):
            return build_backbone(spec)
    except BingoError as error:
        raise ArchitectureMismatchError(str(error)) from error


def build_head(keys: Mapping[str, str], state: Mapping[str, Tensor], activation: str, features: int) -> nn.Sequential:
    """Return the projection head with these names and shapes, on the meta device.

    Args:
        keys: names in the head, with their names in ``state``.
        state: tensors of the file.
        activation: activation between the layers.
        features: width of the backbone's output.

    Raises:
        ArchitectureMismatchError: it is not a sequence of linear layers and batch norms for these features.
    """
    try:
        numbers = sorted({int(name.partition(".")[0]) for name in keys})
        # A single layer without weights is an activation; none may come first, and not two in a row.
        if any(after - before > 2 for before, after in pairwise(numbers)) or numbers[:1] > [0]:
            raise ValueError(f"only layers {numbers} have weights")
        with torch.device("meta"), torch.no_grad():
            head = head_from({name: state[key] for name, key in keys.items()}, activation).eval()
            head(torch.empty(2, features))
    except (ValueError, KeyError, TypeError, RuntimeError) as error:
        raise ArchitectureMismatchError(
            f"has an unknown projection head ({error}) with names {shorten_names(keys.values())}; "
            "save only the backbone"
        ) from error
    return head


def match_weights(
    network: nn.Module, keys: Mapping[str, str], state: Mapping[str, Tensor], what: str
) -> dict[str, Tensor]:
    """Return the complete state dict of a network.

    The batch counters of batch norm are zero if they are missing; old files lack them and evaluations do not use them.

    Args:
        network: the network that will load the weights.
        keys: names in the network, with their names in ``state``.
        state: tensors of the file.
        what: name of the network, for messages.

    Raises:
        ArchitectureMismatchError: a name is missing or unknown, a shape differs, or a value is not finite.
    """
    expected = network.state_dict()
    differing = [name for name in keys if name in expected and state[keys[name]].shape != expected[name].shape]
    faults = {
        "missing": [name for name in expected if name not in keys and not name.endswith(COUNTER)],
        "unknown": [key for name, key in keys.items() if name not in expected],
        "with another shape": [
            f"{keys[name]} {list(state[keys[name]].shape)} instead of {list(expected[name].shape)}"
            for name in differing
        ],
    }
    if any(faults.values()):
        text = "; ".join(f"{len(names)} {fault}: {shorten_names(names)}" for fault, names in faults.items() if names)
        raise ArchitectureMismatchError(f"does not match {what}: {text}; download the file again, or {TIMM_HINT}")
    return {
        name: _checked(keys[name], state[keys[name]], like.dtype)
        if name in keys
        else torch.zeros_like(like, device="cpu")
        for name, like in expected.items()
    }


def _checked(name: str, tensor: Tensor, dtype: torch.dtype) -> Tensor:
    if tensor.layout is not torch.strided or tensor.is_quantized or tensor.is_complex() or tensor.is_meta:
        raise ArchitectureMismatchError(f"'{name}' is not a dense tensor of real numbers; save the network in float32")
    plain = tensor.detach().to(torch.float32) if tensor.is_floating_point() else tensor.detach()
    if not torch.isfinite(plain).all():
        raise ArchitectureMismatchError(
            f"'{name}' has values that are not finite; use a checkpoint from before training diverged"
        )
    return plain.to(dtype).contiguous()
