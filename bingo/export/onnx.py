"""Backbones as ONNX, which holds the network itself."""

import json
import logging
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import nn

from bingo.artifacts.files import atomic_write
from bingo.errors import BingoError
from bingo.export.files import require_suffix
from bingo.export.packages import require_packages
from bingo.export.transform import preprocessing_of
from bingo.models.backbone import require_size
from bingo.models.checkpoint import read_backbone
from bingo.study.sections import Backbone, Preprocessing

log = logging.getLogger(__name__)

_LARGEST = 2**31 - 1
"""Bytes that protobuf, which ONNX is written in, allows in one file."""


def export_onnx(model: Path, output: Path, resize: int | None) -> None:
    """Write a backbone as one ONNX file: input ``images`` (batch, 3, S, S) float32, output ``features`` (batch, D).

    The batch may have any length. Its metadata say how images become input, as JSON: ``mean`` and ``std`` of red,
    green and blue in [0, 1], ``size`` S, and ``resize``, the shorter side before the centre is cut out. ::

        session = onnxruntime.InferenceSession("resnet18.onnx")
        (features,) = session.run(None, {"images": images})

    Args:
        model: file of a student's backbone, or of a teacher, whose head is left out.
        output: file to write, an ``.onnx``.
        resize: shorter side before the crop; None for what the file says, else 256/224 of the size.

    Raises:
        BingoError: onnx or onnxscript is not installed, the file is missing or damaged, the network has more than 2 GB,
            or ``output`` does not end in ``.onnx``.
    """
    require_suffix(output, ".onnx")
    require_packages("onnx", "onnx", "onnxscript")
    network, metadata = read_backbone(model, torch.device("cpu"))
    spec = Backbone.model_validate(metadata["backbone"])
    write_onnx(output, network, spec, preprocessing_of(metadata, resize, model))
    log.info("%s: input images, output features; its metadata say how images are prepared", output)


def write_onnx(output: Path, network: nn.Module, spec: Backbone, preprocessing: Preprocessing) -> None:
    """Write a network in eval mode as `export_onnx` says.

    Raises:
        BingoError: it has more than 2 GB, cannot take images of that size, or ``output`` cannot be written.
    """
    import onnx

    if sum(tensor.nbytes for tensor in network.state_dict().values()) > 0.99 * _LARGEST:
        raise BingoError(f"{output}: a network of 2 GB or more does not fit one ONNX file; export it --to safetensors")
    require_size(network, preprocessing.size, torch.device("cpu"))
    # Two images: of a single one the exporter would take the length for fixed.
    images = torch.zeros(2, 3, preprocessing.size, preprocessing.size)
    loggers = [logging.getLogger(name) for name in ("onnxscript", "onnx_ir", "torch.onnx")]
    for logger in loggers:
        logger.setLevel(logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about its own parts
        program = torch.onnx.export(
            network,
            (images,),
            dynamo=True,
            verbose=False,
            input_names=["images"],
            output_names=["features"],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
        )
    assert program is not None
    written = program.model_proto
    _forget_source(written)
    facts = {"architecture": spec.architecture, **preprocessing.model_dump(include={"size", "resize", "mean", "std"})}
    onnx.helper.set_model_props(
        written, {name: value if isinstance(value, str) else json.dumps(value) for name, value in facts.items()}
    )
    with atomic_write(output) as temporary:
        temporary.write_bytes(written.SerializeToString(deterministic=True))


def _forget_source(model: Any) -> None:
    """Drop what the exporter notes of each node: lines of source code, and where they lay."""
    graph = model.graph
    for part in (graph, *graph.node, *graph.input, *graph.output, *graph.initializer, *graph.value_info):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
