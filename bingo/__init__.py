"""BINGO: bag of instances aggregation boosts self-supervised distillation (Xu et al., ICLR 2022)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bingo import methods as _methods  # noqa: F401  registers the methods with the schema of study files

if TYPE_CHECKING:
    from pathlib import Path

    import torch
    from torch import nn


def load_backbone(path: str | Path, device: str | torch.device = "cpu", *, resize: int | None = None) -> nn.Module:
    """Return a trained backbone of a student or teacher, with its image transform.

    The network maps float32 images (B, 3, S, S) to pooled features (B, D), float32. It is in eval mode with gradients
    disabled. To fine-tune it, call ``requires_grad_(True)`` and ``train()``. Its attribute ``transform`` maps a PIL
    image of any size to a float32 tensor (3, S, S), as in this project's embeddings and evaluations: it converts to
    upright RGB, resizes the shorter side, crops the centre and normalises:

        backbone = bingo.load_backbone("results/birds/students/resnet18/seed-0/backbone.safetensors")
        features = backbone(backbone.transform(Image.open("bird.jpg"))[None])

    Size, mean and standard deviation are those used in training. Files without them, such as imported teachers, get
    224 px and ImageNet's statistics, with a warning.

    Args:
        path: `backbone.safetensors` of a student, the file of a teacher, or output of `bingo export --to safetensors`.
        device: device of the returned network.
        resize: shorter side in pixels before the centre crop. The default is the value used by the evaluations in the
            network's study folder, if any, otherwise 256/224 of the input size.

    Raises:
        BingoError: the file or an evaluation result is missing or damaged, the weights do not match the architecture,
            or ``resize`` is smaller than the network's input.
    """
    from bingo.export.load import load_backbone as load

    return load(path, device, resize=resize)
