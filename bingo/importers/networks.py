"""From names and shapes to a network of this project, and the weights that fit it exactly."""

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
TIMM_HINT = "if timm has this network, give architecture: timm/<name>"
# The modules with weights of Sequential(*resnet.children()).
_CHILDREN = {"0": "conv1", "1": "bn1", "4": "layer1", "5": "layer2", "6": "layer3", "7": "layer4"}


class ArchitectureMismatchError(Exception):
    """Weights that make no network of this project: what is wrong, and the remedy."""


def shorten_names(names: Iterable[str]) -> str:
    """Return names for a message, eight of them at most."""
    listed = list(names)
    return ", ".join(listed[:8]) + (f" and {len(listed) - 8} more" if len(listed) > 8 else "")


def name_modules(places: Mapping[str, str]) -> dict[str, str]:
    """Give the modules of a ResNet that was made a Sequential their names; ``places`` is by name in the network."""
    if "0.weight" not in places or not all(name[:1].isdigit() for name in places):
        return dict(places)
    split = {name: name.partition(".") for name in places}
    return {_CHILDREN.get(child, child) + dot + rest: places[name] for name, (child, dot, rest) in split.items()}


def parse_spec(settings: object) -> Backbone:
    """Return the backbone that ``settings`` describe.

    Raises:
        ArchitectureMismatchError: there is none.
    """
    try:
        return Backbone.model_validate(settings)
    except ValidationError as error:
        raise ArchitectureMismatchError(
            f"needs a backbone that is none ({settings}: {error.errors()[0]['msg']}); {TIMM_HINT}"
        ) from error


def infer_spec(shapes: Mapping[str, torch.Size], architecture: str | None) -> Backbone:
    """Return the backbone that has these names and shapes, or that is not told by them and which the user names.

    Raises:
        ArchitectureMismatchError: there is none.
    """
    if architecture is not None and architecture not in RESNETS:
        return parse_spec({"architecture": architecture})
    stem = next((name for name in STEMS if name in shapes and len(shapes[name]) == 4), None)
    if stem is None:
        raise ArchitectureMismatchError(f"no known network has such names ({shorten_names(shapes)}); {TIMM_HINT}")
    if stem == "conv1.weight":
        return _resnet(shapes)
    specs = [parse_spec({"architecture": name}) for name in STEMS[stem]]
    return max(specs, key=lambda spec: len(shapes.items() & _shapes(blueprint(spec)).items()))


def _resnet(shapes: Mapping[str, torch.Size]) -> Backbone:
    block = "Bottleneck" if "layer1.0.conv3.weight" in shapes else "BasicBlock"
    stages = [f"layer{number}." for number in range(1, 5)]
    layers = [len({name.split(".")[1] for name in shapes if name.startswith(stage)}) for stage in stages]
    found = next((name for name, form in RESNETS.items() if form == (block, layers)), None)
    if found is None:
        raise ArchitectureMismatchError(f"a ResNet of {layers} blocks ({block}) is none of this project's; {TIMM_HINT}")
    channels, *_, kernel = shapes["conv1.weight"]
    return parse_spec({"architecture": found, "width": channels / 64, "stem": "small" if kernel == 3 else "imagenet"})


def _shapes(network: nn.Module) -> dict[str, torch.Size]:
    return {name: value.shape for name, value in network.state_dict().items()}


def blueprint(spec: Backbone) -> nn.Module:
    """Return a backbone without memory for its weights.

    Raises:
        ArchitectureMismatchError: it is timm's, and timm is not installed or does not know it.
    """
    try:
        with torch.device("meta"):
            return build_backbone(spec)
    except BingoError as error:
        raise ArchitectureMismatchError(str(error)) from error


def build_head(places: Mapping[str, str], state: Mapping[str, Tensor], activation: str, features: int) -> nn.Sequential:
    """Return the projection head with these names and shapes, without memory for its weights.

    Args:
        places: name in the head, and name in ``state``.
        state: the file's tensors.
        activation: what lies between the layers.
        features: width of the backbone's output.

    Raises:
        ArchitectureMismatchError: it is no chain of linear layers and batch-norms for such features.
    """
    try:
        numbers = sorted({int(name.partition(".")[0]) for name in places})
        # What has no weights is taken for an activation; not so in front, or two of them.
        if any(after - before > 2 for before, after in pairwise(numbers)) or numbers[:1] > [0]:
            raise ValueError(f"only layers {numbers} have weights")
        with torch.device("meta"), torch.no_grad():
            head = head_from({name: state[place] for name, place in places.items()}, activation).eval()
            head(torch.empty(2, features))
    except (ValueError, KeyError, TypeError, RuntimeError) as error:
        raise ArchitectureMismatchError(
            f"has a projection head of an unknown form ({error}): {shorten_names(places.values())}"
        ) from error
    return head


def match_weights(
    network: nn.Module, places: Mapping[str, str], state: Mapping[str, Tensor], what: str
) -> dict[str, Tensor]:
    """Return the weights of a network under its own names: all of them, and no other.

    Batch-norm's count of batches, which old files lack and no evaluation reads, is zero where it is missing.

    Args:
        network: what the weights are for.
        places: name in the network, and name in ``state``.
        state: the file's tensors.
        what: name of the network.

    Raises:
        ArchitectureMismatchError: a name is missing or left over, a shape differs, or a value is not finite.
    """
    needed = network.state_dict()
    differing = [name for name in places if name in needed and state[places[name]].shape != needed[name].shape]
    faults = {
        "lacks": [name for name in needed if name not in places and not name.endswith(COUNTER)],
        "has besides": [place for name, place in places.items() if name not in needed],
        "has in another shape": [
            f"{places[name]} {list(state[places[name]].shape)} for {list(needed[name].shape)}" for name in differing
        ],
    }
    if any(faults.values()):
        said = "; ".join(f"{verb} {len(names)}: {shorten_names(names)}" for verb, names in faults.items() if names)
        raise ArchitectureMismatchError(f"is no whole {what}: {said}; fetch the file again, or {TIMM_HINT}")
    return {
        name: _sound(places[name], state[places[name]], like.dtype)
        if name in places
        else torch.zeros_like(like, device="cpu")
        for name, like in needed.items()
    }


def _sound(name: str, tensor: Tensor, dtype: torch.dtype) -> Tensor:
    if tensor.layout is not torch.strided or tensor.is_quantized or tensor.is_complex() or tensor.is_meta:
        raise ArchitectureMismatchError(f"'{name}' is no plain tensor of numbers; save the network in float32")
    plain = tensor.detach().to(torch.float32) if tensor.is_floating_point() else tensor.detach()
    if not torch.isfinite(plain).all():
        raise ArchitectureMismatchError(
            f"'{name}' holds values that are not finite; use a file from before training broke down"
        )
    return plain.to(dtype).contiguous()
