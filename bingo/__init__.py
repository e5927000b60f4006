"""BINGO: bag of instances aggregation boosts self-supervised distillation (Xu et al., ICLR 2022)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bingo import methods as _methods  # noqa: F401  enters the methods in the schema of study files

if TYPE_CHECKING:
    from pathlib import Path

    import torch
    from torch import nn


def load_backbone(path: str | Path, device: str | torch.device = "cpu", *, resize: int | None = None) -> nn.Module:
    """Return a trained backbone, a student's or a teacher's, with what an image must go through first.

    The network maps float32 images (B, 3, S, S) to pooled features (B, D) float32. It is in eval mode and needs no
    gradients; ``requires_grad_(True)`` and ``train()`` make it ready for fine-tuning. Its attribute ``transform`` maps
    a PIL image of any size to a float32 tensor (3, S, S), as embeddings and evaluations of this project see images:
    upright, in RGB, the shorter side resized, the centre cut out, normalised. ::

        backbone = bingo.load_backbone("results/birds/students/resnet18/seed-0/backbone.safetensors")
        features = backbone(backbone.transform(Image.open("bird.jpg"))[None])

    Size, mean and deviation are those that the network was trained with. A file that does not say them, as that of an
    imported teacher, is taken for 224 px and ImageNet's statistics, and a warning says so.

    Args:
        path: `backbone.safetensors` of a student, the file of a teacher, or what `bingo export --to safetensors` wrote.
        device: where the network shall be.
        resize: length of the shorter side before the centre is cut out. By default that of the evaluations that lie
            beside the network in the folder of its study, else 256/224 of the size: training does not depend on it, so
            the network's file does not say it.

    Raises:
        BingoError: the file, or a result of its evaluation, is missing or damaged, its weights do not fit the network
            it names, or ``resize`` is smaller than the network's input.
    """
    from bingo.export.load import load_backbone as load

    return load(path, device, resize=resize)
