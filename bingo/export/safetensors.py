"""Export of backbones to safetensors, with metadata."""

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
    """Write a backbone under torchvision's names, or timm's for timm networks.

    `safetensors.torch.load_file` returns the state dict. The header entry ``bingo`` has backbone, preprocessing, method
    and provenance as JSON. `bingo.load_backbone` reads the file too, including ``resize``.

    Args:
        model: file of a student's backbone, or of a teacher, whose head is ignored.
        output: ``.safetensors`` file to write.
        resize: shorter side in pixels before the crop; None for the recorded value, else 256/224 of the size.

    Raises:
        BingoError: the file is missing or damaged, or ``output`` does not end in ``.safetensors``.
    """
    require_suffix(output, ".safetensors")
    network, metadata = read_backbone(model, torch.device("cpu"))
    preprocessing = preprocessing_of(metadata, resize, model)
    write_tensors(output, network.state_dict(), export_metadata(metadata, metadata["backbone"], preprocessing))
    log.info("%s: load it with safetensors.torch.load_file or bingo.load_backbone", output)


def export_metadata(
    metadata: Mapping[str, Any], backbone: Mapping[str, Any], preprocessing: Preprocessing
) -> dict[str, Any]:
    """Return the metadata of an exported file: method, provenance, backbone and preprocessing."""
    origin = {name: metadata[name] for name in ("method", "provenance") if name in metadata}
    return {**origin, "backbone": dict(backbone), "preprocessing": preprocessing.model_dump()}
