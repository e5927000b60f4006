"""Backbones in the formats of other software."""

from typing import Literal

ExportFormat = Literal["detectron2", "huggingface", "onnx", "safetensors", "timm", "torchvision"]

STAGE_VERSION = 1
