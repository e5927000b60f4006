"""Backbones as a folder for the Hugging Face Hub."""

import json
import logging
import math
from pathlib import Path
from typing import Any

import torch
from torch import nn

from bingo.artifacts.tensors import write_tensors
from bingo.export.card import model_card
from bingo.export.files import new_folder
from bingo.export.onnx import write_onnx
from bingo.export.packages import require_packages
from bingo.export.safetensors import described
from bingo.export.study_folder import find_study_folder
from bingo.export.timm import forward_gives_features, timm_name, timm_weights
from bingo.export.torchvision import in_torchvision
from bingo.export.transform import preprocessing_of
from bingo.models.backbone import feature_width
from bingo.models.checkpoint import read_backbone
from bingo.study.sections import TIMM, Backbone, Preprocessing

log = logging.getLogger(__name__)


def export_huggingface(model: Path, output: Path, resize: int | None) -> None:
    """Write a folder to upload as it is: README.md (the model card), config.json, model.safetensors and model.onnx.

    Where timm's network gives the same features, config.json and the names of the weights are timm's, so that
    ``timm.create_model("local-dir:FOLDER", pretrained=True)``, and once uploaded ``hf-hub:USER/NAME``, load it. Any
    other network is in model.onnx, and its weights have the names of its file.

    Args:
        model: file of a student's backbone, or of a teacher, whose head is left out. What its card tells of is found
            beside it, in the folder of its study.
        output: folder to write.
        resize: shorter side before the crop; None for what the file says, else 256/224 of the size.

    Raises:
        BingoError: onnx, onnxscript or timm is not installed, the file is missing or damaged, or ``output`` exists.
    """
    require_packages("huggingface", "onnx", "onnxscript", "timm")
    network, metadata = read_backbone(model, torch.device("cpu"))
    spec = Backbone.model_validate(metadata["backbone"])
    preprocessing = preprocessing_of(metadata, resize, model)
    beside = find_study_folder(model, metadata)
    name = timm_name(spec)
    weights, held = network.state_dict(), spec
    if name is not None and forward_gives_features(spec):
        weights = timm_weights(network, spec, name)
        config = _timm_config(name, network, preprocessing)
        if weights.keys() != network.state_dict().keys():  # so that bingo.load_backbone reads it too
            held = Backbone(architecture=f"{TIMM}{name}")
    else:
        name = None
        config = {**spec.model_dump(), "num_features": feature_width(network)} | {
            "preprocessing": preprocessing.model_dump(exclude={"decoder"})
        }
    library = "timm" if name else "onnx"
    loaders = _loaders(spec, name, preprocessing)
    card = model_card(spec, feature_width(network), preprocessing, metadata, beside, loaders, library)
    with new_folder(output) as folder:
        write_tensors(folder / "model.safetensors", weights, described(metadata, held.model_dump(), preprocessing))
        write_onnx(folder / "model.onnx", network, spec, preprocessing)
        (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        (folder / "README.md").write_text(card, encoding="utf-8")
    log.info("%s: read its README.md, state the licence there, and upload the folder", output)


def _timm_config(name: str, network: nn.Module, preprocessing: Preprocessing) -> dict[str, Any]:
    """Return what timm expects in config.json."""
    import timm

    with torch.device("meta"):
        known = getattr(timm.create_model(name), "pretrained_cfg", {})
    size = preprocessing.size
    return {
        "architecture": name,
        "num_classes": 0,
        "num_features": feature_width(network),
        "pretrained_cfg": {
            "num_classes": 0,
            "input_size": [3, size, size],
            "fixed_input_size": known.get("fixed_input_size", False),
            "interpolation": "bilinear",
            "crop_mode": "center",
            "crop_pct": crop_share(preprocessing),
            "mean": preprocessing.mean,
            "std": preprocessing.std,
            "first_conv": known.get("first_conv"),
            "classifier": known.get("classifier"),
        },
    }


def crop_share(preprocessing: Preprocessing) -> float:
    """Return the share of the shorter side that the centre crop keeps, such that timm, rounding down, resizes alike."""
    share = preprocessing.size / preprocessing.resize
    return share if math.floor(preprocessing.size / share) == preprocessing.resize else math.nextafter(share, 0)


def _loaders(spec: Backbone, name: str | None, preprocessing: Preprocessing) -> dict[str, str]:
    """Return a line about each way to load the folder, and the code for it."""
    loaders = {}
    if name is not None:
        loaders["With timm, from this folder (`hf-hub:USER/NAME` once it is uploaded):"] = """
import timm

network = timm.create_model("local-dir:.", pretrained=True).eval()
transform = timm.data.create_transform(**timm.data.resolve_model_data_config(network))
features = network(transform(image)[None])  # image: a PIL image in RGB
"""
    elif in_torchvision(spec):
        loaders["With torchvision:"] = f"""
import torch, torchvision
from safetensors.torch import load_file

network = torchvision.models.{spec.architecture}().eval()
network.classifier = torch.nn.Identity()
network.load_state_dict(load_file("model.safetensors"))
features = network(images)
"""
    else:
        loaders["The weights alone:"] = """
from safetensors.torch import load_file

weights = load_file("model.safetensors")
"""
    size = preprocessing.size
    loaders["With ONNX Runtime:"] = f"""
import onnxruntime

session = onnxruntime.InferenceSession("model.onnx")
(features,) = session.run(None, {{"images": images}})  # float32 (B, 3, {size}, {size}), normalised as above
"""
    loaders["With the package `bingo-distillation` that made it:"] = """
import bingo

network = bingo.load_backbone("model.safetensors")
features = network(network.transform(image)[None])  # image: a PIL image
"""
    return loaders
