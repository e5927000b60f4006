"""Backbones as detectron2 reads them."""

import logging
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bingo.artifacts.files import atomic_write
from bingo.errors import BingoError
from bingo.export.files import require_suffix
from bingo.models.backbone import ResNet
from bingo.models.checkpoint import read_backbone

log = logging.getLogger(__name__)


def export_detectron2(model: Path, output: Path) -> None:
    """Write a ResNet as the pickle that MoCo's detection/convert-pretrain-to-detectron2.py writes.

    It holds ``model`` (names of detectron2 and arrays), ``__author__`` and ``matching_heuristics``, and is loaded by
    naming it, with a name that ends in ``.pkl``, as ``MODEL.WEIGHTS``. As in MoCo's script every entry of the
    backbone is kept: ``num_batches_tracked`` belongs to detectron2's BN and SyncBN, and its FrozenBN passes over it.

    The configuration must say what the network is, since detectron2's defaults are another one's::

        MODEL:
          PIXEL_MEAN: [123.675, 116.280, 103.530]  # 255 times the study's mean, in the order RGB
          PIXEL_STD: [58.395, 57.120, 57.375]      # 255 times its standard deviation
          RESNETS:
            DEPTH: 50                              # 18, 34, 50, 101 or 152
            RES2_OUT_CHANNELS: 256                 # 64 for depth 18 and 34
            STRIDE_IN_1X1: False
        INPUT:
          FORMAT: "RGB"

    A ResNet-50, -101 or -152 of another width has its ``STEM_OUT_CHANNELS`` (64), ``WIDTH_PER_GROUP`` (64) and
    ``RES2_OUT_CHANNELS`` (256) times the width. detectron2 builds no ResNet-10, and depth 18 and 34 in width 1 alone:
    others have to be put together there from its `ResNet.make_stage`. MoCo fine-tunes all layers, with
    ``RESNETS.NORM: SyncBN`` and ``BACKBONE.FREEZE_AT: 0``.

    Args:
        model: file of a student's backbone, or of a teacher, whose head is left out.
        output: file to write.

    Raises:
        BingoError: the file is missing or damaged, or holds anything but a ResNet with the ImageNet stem, or
            ``output`` does not end in ``.pkl``.
    """
    require_suffix(output, ".pkl")
    backbone, metadata = read_backbone(model, torch.device("cpu"))
    spec = metadata["backbone"]
    if not isinstance(backbone, ResNet):
        raise BingoError(f"{model}: holds {spec['architecture']}; detectron2 has names for resnet10 to resnet152 alone")
    if spec.get("stem", "imagenet") != "imagenet":
        raise BingoError(
            f"{model}: holds a {spec['architecture']} with stem: {spec['stem']}, which detectron2 has not; train one "
            "with stem: imagenet"
        )
    weights = {detectron2_name(name): tensor.contiguous().numpy() for name, tensor in backbone.state_dict().items()}
    content = {"model": weights, "__author__": "bingo", "matching_heuristics": True}
    with atomic_write(output) as temporary, temporary.open("wb") as file:
        _Pickler(file, protocol=4).dump(content)
    log.info(
        "%s: set MODEL.RESNETS.DEPTH and RES2_OUT_CHANNELS to those of a %s of width %g, STRIDE_IN_1X1 False, "
        "INPUT.FORMAT RGB, MODEL.PIXEL_MEAN and PIXEL_STD to 255 times the study's",
        output,
        spec["architecture"],
        spec.get("width", 1),
    )


def detectron2_name(name: str) -> str:
    """Return what detectron2 calls an entry of a torchvision ResNet: ``res2.0.conv1.norm.bias``, say."""
    if "layer" not in name:
        name = f"stem.{name}"
    for stage in (1, 2, 3, 4):
        name = name.replace(f"layer{stage}", f"res{stage + 1}")
    for place in (1, 2, 3):
        name = name.replace(f"bn{place}", f"conv{place}.norm")
    return name.replace("downsample.0", "shortcut").replace("downsample.1", "shortcut.norm")


class _Pickler(pickle.Pickler):
    """Writes arrays so that every numpy can read them.

    numpy 2 names its own module ``numpy._core``, which the older ones that detectron2 is often installed with lack.
    """

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, np.ndarray):
            return np.ndarray, (obj.shape, obj.dtype.str, bytearray(obj.tobytes()))
        return NotImplemented
