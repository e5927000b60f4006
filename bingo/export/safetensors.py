"""Backbones as plain safetensors, with what is needed to use them."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from bingo.artifacts.tensors import write_tensors
from bingo.export.files import require_suffix
from bingo.export.transform import preprocessing_of
from bingo.models.checkpoint import read_backbone
from bingo.study.sections import Preprocessing

log = logging.getLogger(__name__)


def export_safetensors(model: Path, output: Path, resize: int | None) -> None:
    """Write a backbone alone, under torchvision's names (timm's for a network of timm's).

    `safetensors.torch.load_file` gives the state dict; the header's entry ``bingo`` says in JSON what it is: backbone,
    preprocessing, method and provenance. `bingo.load_backbone` reads it too, with the size before the crop.

    Args:
        model: file of a student's backbone, or of a teacher, whose head is left out.
        output: file to write, a ``.safetensors``.
        resize: shorter side before the crop; None for what the file says, else 256/224 of the size.

    Raises:
        BingoError: the file is missing or damaged, or ``output`` does not end in ``.safetensors``.
    """
    require_suffix(output, ".safetensors")
    network, metadata = read_backbone(model, torch.device("cpu"))
    preprocessing = preprocessing_of(metadata, resize, model)
    write_tensors(output, network.state_dict(), described(metadata, metadata["backbone"], preprocessing))
    log.info("%s: for safetensors.torch.load_file, or bingo.load_backbone", output)


def described(metadata: Mapping[str, Any], backbone: Mapping[str, Any], preprocessing: Preprocessing) -> dict[str, Any]:
    """Return what an exported file says of itself: what its network is, how it is fed, and how it came about."""
    kept = {name: metadata[name] for name in ("method", "provenance") if name in metadata}
    return {**kept, "backbone": dict(backbone), "preprocessing": preprocessing.model_dump()}
