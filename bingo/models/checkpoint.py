"""A trained network as one safetensors file, with what is needed to build it again."""

import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from torch import nn

from bingo.config import Backbone
from bingo.errors import BingoError
from bingo.models.backbone import ResNet, build_backbone
from bingo.models.head import mlp_head
from bingo.tensors import read_tensors


@dataclass(frozen=True)
class Teacher:
    """A frozen network: backbone, projection head, and its fingerprint."""

    backbone: ResNet
    head: nn.Sequential
    digest: str
    metadata: dict[str, Any]

    @property
    def dim(self) -> int:
        """Width of the projection."""
        return int(self.head[-1].out_features)  # type: ignore[arg-type]


def load_teacher(path: Path, device: torch.device) -> Teacher:
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
    if not {"0.weight", "2.weight"} <= set(parts["head"]):
        raise BingoError(f"{path}: holds no projection head, so it is no teacher")
    hidden, features = parts["head"]["0.weight"].shape
    head = mlp_head(features, hidden, parts["head"]["2.weight"].shape[0])
    _fill(backbone, parts["backbone"], path)
    _fill(head, parts["head"], path)
    return Teacher(backbone.to(device), head.to(device), metadata["digest"], metadata)


def load_backbone(path: Path, device: torch.device) -> tuple[ResNet, dict[str, Any]]:
    """Read a backbone, a student's or a teacher's: (network in eval mode without gradients, metadata).

    Raises:
        BingoError: the file is missing or damaged, or its weights do not fit the network it names.
    """
    tensors, metadata = read_tensors(path)
    if any(name.startswith("backbone.") for name in tensors):
        teacher = load_teacher(path, device)
        return teacher.backbone, teacher.metadata
    backbone = _backbone(metadata, path)
    _fill(backbone, tensors, path)
    return backbone.to(device), metadata


def _backbone(metadata: dict[str, Any], path: Path) -> ResNet:
    try:
        spec = Backbone.model_validate(metadata.get("backbone"))
    except ValidationError as error:
        raise BingoError(f"{path}: does not say which backbone it holds ({error.errors()[0]['msg']})") from error
    return build_backbone(spec)


def _fill(module: nn.Module, state: dict[str, Any], path: Path) -> None:
    try:
        module.load_state_dict(state, strict=True)
    except RuntimeError as error:
        faults = textwrap.shorten(str(error), 300, placeholder=" ...")
        raise BingoError(f"{path}: weights do not fit the network it names ({faults})") from error
    module.eval().requires_grad_(False)
