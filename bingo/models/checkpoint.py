"""Checkpoints of trained networks: one safetensors file with weights and architecture."""

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
    """A frozen teacher: backbone, projection head (may be empty), digest and metadata."""

    backbone: nn.Module
    head: nn.Sequential
    digest: str
    metadata: dict[str, Any]

    @property
    def features(self) -> int:
        """Width of the backbone's features."""
        return feature_width(self.backbone)

    @property
    def dim(self) -> int:
        """Width of the head's output, or of the features if there is no head."""
        return output_width(self.head, self.features)


def write_teacher(
    path: Path,
    spec: Backbone,
    backbone: Mapping[str, Tensor],
    head: Mapping[str, Tensor],
    metadata: Mapping[str, Any],
    activation: str = "relu",
) -> None:
    """Write a teacher: the backbone's tensors under ``backbone.``, the head's under ``head.``.

    Args:
        path: safetensors file to write.
        spec: architecture of the backbone.
        backbone: state dict of the backbone.
        head: state dict of the head, with the names of an `nn.Sequential`; empty for no head.
        metadata: other metadata, such as `method` and `provenance`.
        activation: activation of the head, ``relu`` or ``gelu``.
    """
    tensors = {f"backbone.{name}": value for name, value in backbone.items()}
    tensors |= {f"head.{name}": value for name, value in head.items()}
    write_tensors(path, tensors, {**metadata, "backbone": spec.model_dump(), "activation": activation})


def load_teacher(path: Path, device: torch.device) -> TeacherNetwork:
    """Load a teacher written by `write_teacher` onto ``device``, in eval mode and without gradients.

    Raises:
        BingoError: the file does not exist or is damaged, or its weights do not fit its architecture.
    """
    tensors, metadata = read_tensors(path)
    backbone = _backbone(metadata, path)
    parts: dict[str, dict[str, Any]] = {"backbone": {}, "head": {}}
    for name, tensor in tensors.items():
        part, _, key = name.partition(".")
        if part not in parts:
            raise BingoError(f"{path}: contains '{name}', which belongs to neither backbone nor head")
        parts[part][key] = tensor
    fill(backbone, parts["backbone"], path)
    try:
        head = head_from(parts["head"], metadata.get("activation", "relu"))
    except (ValueError, KeyError) as error:
        raise BingoError(f"{path}: contains an unsupported projection head ({error})") from error
    fill(head, parts["head"], path)
    return TeacherNetwork(backbone.to(device), head.to(device), network_digest(metadata), metadata)


def read_backbone(path: Path, device: torch.device) -> tuple[nn.Module, dict[str, Any]]:
    """Load the backbone of a student or teacher: (network in eval mode without gradients, metadata).

    Raises:
        BingoError: the file does not exist or is damaged, or its weights do not fit its architecture.
    """
    tensors, metadata = read_tensors(path)
    if any(name.startswith("backbone.") for name in tensors):
        teacher = load_teacher(path, device)
        return teacher.backbone, teacher.metadata
    backbone = _backbone(metadata, path)
    fill(backbone, tensors, path)
    return backbone.to(device), metadata


def fill(module: nn.Module, state: Mapping[str, Any], path: Path) -> None:
    """Load weights into a module, and put it into eval mode without gradients.

    Args:
        module: network to load into, in place.
        state: state dict.
        path: file of the weights, for error messages.

    Raises:
        BingoError: a tensor is missing or unexpected, has the wrong shape, or is not finite.
    """
    try:
        module.load_state_dict(state, strict=True)
    except RuntimeError as error:
        details = textwrap.shorten(str(error), 300, placeholder=" ...")
        raise BingoError(f"{path}: weights do not fit the architecture in its metadata ({details})") from error
    if not all(value.isfinite().all() for value in module.state_dict().values()):
        raise BingoError(f"{path}: holds weights that are not finite; train it with a lower learning rate")
    module.eval().requires_grad_(False)


def _backbone(metadata: dict[str, Any], path: Path) -> nn.Module:
    try:
        spec = Backbone.model_validate(metadata.get("backbone"))
    except ValidationError as error:
        raise BingoError(f"{path}: no valid backbone in its metadata ({error.errors()[0]['msg']})") from error
    return build_backbone(spec)
