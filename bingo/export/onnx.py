"""Export of backbones to ONNX, which contains the network itself."""

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
"""Maximum size in bytes of a protobuf file, the container of ONNX."""


def export_onnx(model: Path, output: Path, resize: int | None) -> None:
    """Write a backbone as one ONNX file: input ``images`` (batch, 3, S, S) float32, output ``features`` (batch, D).

    The batch size is dynamic. The metadata contain the preprocessing as JSON: ``mean`` and ``std`` of red, green and
    blue in [0, 1], ``size`` S, and ``resize``, the shorter side in pixels before the centre crop:

        session = onnxruntime.InferenceSession("resnet18.onnx")
        (features,) = session.run(None, {"images": images})

    Args:
        model: file of a student's backbone, or of a teacher, whose head is ignored.
        output: ``.onnx`` file to write.
        resize: shorter side in pixels before the crop; None for the recorded value, else 256/224 of the size.

    Raises:
        BingoError: onnx or onnxscript is not installed, the file is missing or damaged, the network has more than 2 GB,
            or ``output`` does not end in ``.onnx``.
    """
    require_suffix(output, ".onnx")
    require_packages("onnx", "onnx", "onnxscript")
    network, metadata = read_backbone(model, torch.device("cpu"))
    spec = Backbone.model_validate(metadata["backbone"])
    write_onnx(output, network, spec, preprocessing_of(metadata, resize, model))
    log.info("%s: input images, output features; preprocessing is in its metadata", output)


def write_onnx(output: Path, network: nn.Module, spec: Backbone, preprocessing: Preprocessing) -> None:
    """Write a network in eval mode as ONNX; see `export_onnx` for the format.

    Raises:
        BingoError: the network has more than 2 GB, does not support images of that size, or ``output`` cannot be
            written.
    """
    import onnx

    if sum(tensor.nbytes for tensor in network.state_dict().values()) > 0.99 * _LARGEST:
        raise BingoError(f"{output}: a network of 2 GB or more does not fit in ONNX; export it --to safetensors")
    require_size(network, preprocessing.size, torch.device("cpu"))
    # Two images, because the exporter would treat a batch size of 1 as constant.
    images = torch.zeros(2, 3, preprocessing.size, preprocessing.size)
    loggers = [logging.getLogger(name) for name in ("onnxscript", "onnx_ir", "torch.onnx")]
    for logger in loggers:
        logger.setLevel(logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter warns about its own code
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
    proto = program.model_proto
    _remove_source_locations(proto)
    facts = {"architecture": spec.architecture, **preprocessing.model_dump(include={"size", "resize", "mean", "std"})}
    onnx.helper.set_model_props(
        proto, {name: value if isinstance(value, str) else json.dumps(value) for name, value in facts.items()}
    )
    with atomic_write(output) as temporary:
        temporary.write_bytes(proto.SerializeToString(deterministic=True))


def _remove_source_locations(model: Any) -> None:
    """Remove source code and file paths that the exporter attaches to each node."""
    graph = model.graph
    for part in (graph, *graph.node, *graph.input, *graph.output, *graph.initializer, *graph.value_info):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
