"""The export stage: write a backbone in the format of other software."""

from collections.abc import Callable
from pathlib import Path

from bingo.errors import BingoError
from bingo.export.detectron2 import export_detectron2
from bingo.export.huggingface import export_huggingface
from bingo.export.onnx import export_onnx
from bingo.export.safetensors import export_safetensors
from bingo.export.study_folder import evaluated_resize
from bingo.export.timm import export_timm
from bingo.export.torchvision import export_torchvision
from bingo.study.jobs import ExportJob
from bingo.study.sections import ExportFormat

_WEIGHT_EXPORTERS: dict[ExportFormat, Callable[[Path, Path], None]] = {
    "detectron2": export_detectron2,
    "timm": export_timm,
    "torchvision": export_torchvision,
}
"""Formats that contain only weights."""
_EXPORTERS_WITH_INPUT: dict[ExportFormat, Callable[[Path, Path, int | None], None]] = {
    "huggingface": export_huggingface,
    "onnx": export_onnx,
    "safetensors": export_safetensors,
}
"""Formats that also describe the preprocessing."""


def run(job: ExportJob, threads: int) -> None:  # noqa: ARG001
    """Write a backbone in a format that other software loads without this project's code.

    ``resize`` of the job is the shorter side before the centre crop, in pixels. By default, it is taken from the
    results next to the network, else from the network's metadata, else it is 256/224 of the size.

    Raises:
        BingoError: a package is not installed, the file does not exist or is damaged, the format does not support the
            network or ``resize``, or ``output`` has the wrong suffix, is the network itself or is an existing folder.
    """
    model, output, to, resize = job.weights, job.output, job.to, job.resize
    if output.resolve() == model.resolve():
        raise BingoError(f"--output: {output} is the network itself and would be overwritten; choose another file")
    if to in _EXPORTERS_WITH_INPUT:
        _EXPORTERS_WITH_INPUT[to](model, output, evaluated_resize(model) if resize is None else resize)
    elif resize is None:
        _WEIGHT_EXPORTERS[to](model, output)
    else:
        raise BingoError(f"--resize: the format {to} contains only weights and cannot store it; leave it out")
