"""Export of backbones to a folder for the Hugging Face Hub."""

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
from bingo.export.safetensors import export_metadata
from bingo.export.study_folder import find_study_folder
from bingo.export.timm import forward_gives_features, timm_name, timm_weights
from bingo.export.torchvision import in_torchvision
from bingo.export.transform import preprocessing_of
from bingo.models.backbone import feature_width
from bingo.models.checkpoint import read_backbone
from bingo.study.sections import TIMM, Backbone, Preprocessing

log = logging.getLogger(__name__)


def export_huggingface(model: Path, output: Path, resize: int | None) -> None:
    """Write a folder for upload: README.md (the model card), config.json, model.safetensors and model.onnx.

    If timm's network gives the same features, config.json and the names of the weights are timm's. Then
    ``timm.create_model("local-dir:FOLDER", pretrained=True)`` loads it, or ``hf-hub:USER/NAME`` after the upload.
    Other networks keep the names of their weights and are loaded from model.onnx.

    Args:
        model: file of a student's backbone, or of a teacher, whose head is ignored. The contents of the card come from
            its study's folder.
        output: folder to write.
        resize: shorter side in pixels before the crop; None for the recorded value, else 256/224 of the size.

    Raises:
        BingoError: onnx, onnxscript or timm is not installed, the file is missing or damaged, or ``output`` exists.
    """
    require_packages("huggingface", "onnx", "onnxscript", "timm")
    network, metadata = read_backbone(model, torch.device("cpu"))
    spec = Backbone.model_validate(metadata["backbone"])
    preprocessing = preprocessing_of(metadata, resize, model)
    study_folder = find_study_folder(model, metadata)
    name = timm_name(spec)
    weights, exported_spec = network.state_dict(), spec
    if name is not None and forward_gives_features(spec):
        weights = timm_weights(network, spec, name)
        config = _timm_config(name, network, preprocessing)
        if weights.keys() != network.state_dict().keys():  # bingo.load_backbone must find the names of the weights
            exported_spec = Backbone(architecture=f"{TIMM}{name}")
    else:
        name = None
        config = {**spec.model_dump(), "num_features": feature_width(network)} | {
            "preprocessing": preprocessing.model_dump(exclude={"decoder"})
        }
    library = "timm" if name else "onnx"
    loaders = _loaders(spec, name, preprocessing)
    card = model_card(spec, feature_width(network), preprocessing, metadata, study_folder, loaders, library)
    file_metadata = export_metadata(metadata, exported_spec.model_dump(), preprocessing)
    with new_folder(output) as folder:
        write_tensors(folder / "model.safetensors", weights, file_metadata)
        write_onnx(folder / "model.onnx", network, spec, preprocessing)
        (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        (folder / "README.md").write_text(card, encoding="utf-8")
    log.info("%s: check README.md, state the licence there, and upload the folder", output)


def _timm_config(name: str, network: nn.Module, preprocessing: Preprocessing) -> dict[str, Any]:
    """Return the content of config.json for timm."""
    import timm

    with torch.device("meta"):
        timm_config = getattr(timm.create_model(name), "pretrained_cfg", {})
    size = preprocessing.size
    return {
        "architecture": name,
        "num_classes": 0,
        "num_features": feature_width(network),
        "pretrained_cfg": {
            "num_classes": 0,
            "input_size": [3, size, size],
            "fixed_input_size": timm_config.get("fixed_input_size", False),
            "interpolation": "bilinear",
            "crop_mode": "center",
            "crop_pct": crop_share(preprocessing),
            "mean": preprocessing.mean,
            "std": preprocessing.std,
            "first_conv": timm_config.get("first_conv"),
            "classifier": timm_config.get("classifier"),
        },
    }


def crop_share(preprocessing: Preprocessing) -> float:
    """Return the crop fraction from which timm, which rounds down, computes the same resize."""
    share = preprocessing.size / preprocessing.resize
    return share if math.floor(preprocessing.size / share) == preprocessing.resize else math.nextafter(share, 0)


def _loaders(spec: Backbone, name: str | None, preprocessing: Preprocessing) -> dict[str, str]:
    """Return description and code of each way to load the folder."""
    loaders = {}
    if name is not None:
        loaders["With timm, from this folder (`hf-hub:USER/NAME` after the upload):"] = """
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
        loaders["Only the weights:"] = """
from safetensors.torch import load_file

weights = load_file("model.safetensors")
"""
    size = preprocessing.size
    loaders["With ONNX Runtime:"] = f"""
import onnxruntime

session = onnxruntime.InferenceSession("model.onnx")
(features,) = session.run(None, {{"images": images}})  # float32 (B, 3, {size}, {size}), normalised as above
"""
    loaders["With the package `bingo-distillation`:"] = """
import bingo

network = bingo.load_backbone("model.safetensors")
features = network(network.transform(image)[None])  # image: a PIL image
"""
    return loaders
