"""A trained network as one safetensors file, with what is needed to build it again."""

import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor, nn

from bingo.artifacts.tensors import network_digest, read_tensors, write_tensors
from bingo.errors import BingoError
from bingo.models.backbone import build_backbone, feature_width
from bingo.models.head import head_from, output_width
from bingo.study.sections import Backbone


@dataclass(frozen=True)
class TeacherNetwork:
    """A frozen network: backbone, projection head (which may be empty), and its fingerprint."""

    backbone: nn.Module
    head: nn.Sequential
    digest: str
    metadata: dict[str, Any]

    @property
    def features(self) -> int:
        """Width of the backbone's output."""
        return feature_width(self.backbone)

    @property
    def dim(self) -> int:
        """Width of the projection; without a head, of the features."""
        return output_width(self.head, self.features)


def write_teacher(
    path: Path,
    spec: Backbone,
    backbone: Mapping[str, Tensor],
    head: Mapping[str, Tensor],
    metadata: Mapping[str, Any],
    activation: str = "relu",
) -> None:
    """Write a backbone under ``backbone.`` and a head under ``head.`` as one file that `load_teacher` reads.

    Args:
        path: safetensors file to write.
        spec: what the backbone is.
        backbone: its state dict.
        head: the head's, with the names of a Sequential; empty for none.
        metadata: what else the file says of itself, `method` and `provenance`.
        activation: the head's, ``relu`` or ``gelu``.
    """
    tensors = {f"backbone.{name}": value for name, value in backbone.items()}
    tensors |= {f"head.{name}": value for name, value in head.items()}
    write_tensors(path, tensors, {**metadata, "backbone": spec.model_dump(), "activation": activation})


def load_teacher(path: Path, device: torch.device) -> TeacherNetwork:
    """Read a teacher: backbone under ``backbone.``, head under ``head.``.

    The networks are on ``device``, in eval mode, and need no gradients.

    Raises:
        BingoError: the file is missing or damaged, or its weights do not fit the network it names.
    """
    tensors, metadata = read_tensors(path)
    backbone = _backbone(metadata, path)
    parts: dict[str, dict[str, Any]] = {"backbone": {}, "head": {}}
    for name, tensor in tensors.items():
        part, _, key = name.partition(".")
        if part not in parts:
            raise BingoError(f"{path}: holds '{name}', which belongs neither to a backbone nor to a head")
        parts[part][key] = tensor
    fill(backbone, parts["backbone"], path)
    try:
        head = head_from(parts["head"], metadata.get("activation", "relu"))
    except (ValueError, KeyError) as error:
        raise BingoError(f"{path}: holds a projection head of an unknown form ({error})") from error
    fill(head, parts["head"], path)
    return TeacherNetwork(backbone.to(device), head.to(device), network_digest(metadata), metadata)


def read_backbone(path: Path, device: torch.device) -> tuple[nn.Module, dict[str, Any]]:
    """Read a backbone, a student's or a teacher's: (network in eval mode without gradients, metadata).

    Raises:
        BingoError: the file is missing or damaged, or its weights do not fit the network it names.
    """
    tensors, metadata = read_tensors(path)
    if any(name.startswith("backbone.") for name in tensors):
        teacher = load_teacher(path, device)
        return teacher.backbone, teacher.metadata
    backbone = _backbone(metadata, path)
    fill(backbone, tensors, path)
    return backbone.to(device), metadata


def fill(module: nn.Module, state: Mapping[str, Any], path: Path) -> None:
    """Load weights into a module, which ends in eval mode without gradients.

    Raises:
        BingoError: a name is missing or left over, a shape differs, or a value is not finite; ``path`` is where they
            come from.
    """
    try:
        module.load_state_dict(state, strict=True)
    except RuntimeError as error:
        faults = textwrap.shorten(str(error), 300, placeholder=" ...")
        raise BingoError(f"{path}: weights do not fit the network it names ({faults})") from error
    if not all(value.isfinite().all() for value in module.state_dict().values()):
        raise BingoError(f"{path}: holds weights that are not finite; train it with a lower learning rate")
    module.eval().requires_grad_(False)


def _backbone(metadata: dict[str, Any], path: Path) -> nn.Module:
    try:
        spec = Backbone.model_validate(metadata.get("backbone"))
    except ValidationError as error:
        raise BingoError(f"{path}: does not say which backbone it holds ({error.errors()[0]['msg']})") from error
    return build_backbone(spec)
