"""Export of ResNets to detectron2."""

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
    """Write a ResNet as a pickle in the format of MoCo's detection/convert-pretrain-to-detectron2.py.

    The pickle has the entries ``model`` (arrays under detectron2's names), ``__author__`` and ``matching_heuristics``.
    Set ``MODEL.WEIGHTS`` to the file, whose name must end in ``.pkl``. As in MoCo's script, all entries are kept:
    detectron2's BN and SyncBN use ``num_batches_tracked``, FrozenBN ignores it.

    The defaults of detectron2 describe a different network, so set in the configuration:

        MODEL:
          PIXEL_MEAN: [123.675, 116.280, 103.530]  # 255 times the study's mean, in the order RGB
          PIXEL_STD: [58.395, 57.120, 57.375]      # 255 times its standard deviation
          RESNETS:
            DEPTH: 50                              # 18, 34, 50, 101 or 152
            RES2_OUT_CHANNELS: 256                 # 64 for depth 18 and 34
            STRIDE_IN_1X1: False
        INPUT:
          FORMAT: "RGB"

    For a ResNet-50, -101 or -152 of another width, multiply ``STEM_OUT_CHANNELS`` (64), ``WIDTH_PER_GROUP`` (64) and
    ``RES2_OUT_CHANNELS`` (256) by the width. detectron2 does not support ResNet-10, and depths 18 and 34 only with
    width 1; build other networks with its `ResNet.make_stage`. MoCo fine-tunes all layers with
    ``RESNETS.NORM: SyncBN`` and ``BACKBONE.FREEZE_AT: 0``.

    Args:
        model: file of a student's backbone, or of a teacher, whose head is ignored.
        output: file to write.

    Raises:
        BingoError: the file is missing or damaged, the network is not a ResNet with the ImageNet stem, or ``output``
            does not end in ``.pkl``.
    """
    require_suffix(output, ".pkl")
    backbone, metadata = read_backbone(model, torch.device("cpu"))
    spec = metadata["backbone"]
    if not isinstance(backbone, ResNet):
        raise BingoError(
            f"{model}: is a {spec['architecture']}, but detectron2 only supports ResNets; export it --to onnx"
        )
    if spec.get("stem", "imagenet") != "imagenet":
        raise BingoError(
            f"{model}: is a {spec['architecture']} with stem: {spec['stem']}, which detectron2 does not support; train "
            "one with stem: imagenet"
        )
    weights = {detectron2_name(name): tensor.contiguous().numpy() for name, tensor in backbone.state_dict().items()}
    content = {"model": weights, "__author__": "bingo", "matching_heuristics": True}
    with atomic_write(output) as temporary, temporary.open("wb") as file:
        _Pickler(file, protocol=4).dump(content)
    log.info(
        "%s: set MODEL.RESNETS.DEPTH and RES2_OUT_CHANNELS for a %s of width %g, STRIDE_IN_1X1: False, "
        "INPUT.FORMAT: RGB, and MODEL.PIXEL_MEAN and PIXEL_STD to 255 times mean and std of the study",
        output,
        spec["architecture"],
        spec.get("width", 1),
    )


def detectron2_name(name: str) -> str:
    """Return detectron2's name for an entry of a torchvision ResNet, such as ``res2.0.conv1.norm.bias``."""
    if "layer" not in name:
        name = f"stem.{name}"
    for stage in (1, 2, 3, 4):
        name = name.replace(f"layer{stage}", f"res{stage + 1}")
    for number in (1, 2, 3):
        name = name.replace(f"bn{number}", f"conv{number}.norm")
    return name.replace("downsample.0", "shortcut").replace("downsample.1", "shortcut.norm")


class _Pickler(pickle.Pickler):
    """Pickles arrays so that numpy 1 can read them.

    numpy 2 pickles refer to ``numpy._core``, which older versions, often installed with detectron2, do not have.
    """

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, np.ndarray):
            return np.ndarray, (obj.shape, obj.dtype.str, bytearray(obj.tobytes()))
        return NotImplemented
