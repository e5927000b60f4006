"""The export stage: a backbone in the format of other software."""

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
"""Formats of weights alone."""
_EXPORTERS_WITH_INPUT: dict[ExportFormat, Callable[[Path, Path, int | None], None]] = {
    "huggingface": export_huggingface,
    "onnx": export_onnx,
    "safetensors": export_safetensors,
}
"""Formats that say how images become input, too."""


def run(job: ExportJob, threads: int) -> None:  # noqa: ARG001
    """Write a backbone in a format that other software loads, with none of this project's code.

    Where the job has no ``resize``, the shorter side before evaluation's crop, that of the results that lie beside the
    network is taken, else what its file says, else 256/224 of the size.

    Raises:
        BingoError: a package is not installed, the file is missing or damaged, the format has no such network,
            ``output`` has the wrong ending, is the network itself or a folder that exists, or the format has no place
            for ``resize``.
    """
    model, output, to, resize = job.weights, job.output, job.to, job.resize
    if output.resolve() == model.resolve():
        raise BingoError(f"--output: {output} is the network itself, of which a part would be left; name another file")
    if to in _EXPORTERS_WITH_INPUT:
        _EXPORTERS_WITH_INPUT[to](model, output, evaluated_resize(model) if resize is None else resize)
    elif resize is None:
        _WEIGHT_EXPORTERS[to](model, output)
    else:
        raise BingoError(f"--resize: a file for {to} holds weights alone and cannot say it; leave it out")
