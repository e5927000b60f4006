"""Load a trained backbone together with the image transform of its evaluations."""

from pathlib import Path

import torch
from torch import nn

from bingo.export.study_folder import evaluated_resize
from bingo.export.transform import CentreView, preprocessing_of
from bingo.models.checkpoint import read_backbone


def load_backbone(path: str | Path, device: str | torch.device, *, resize: int | None) -> nn.Module:
    """Implement `bingo.load_backbone`."""
    network, metadata = read_backbone(Path(path), torch.device(device))
    if resize is None:
        resize = evaluated_resize(Path(path))
    network.transform = CentreView(preprocessing_of(metadata, resize, Path(path)))  # type: ignore[assignment]
    return network
