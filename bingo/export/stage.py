"""Entry point of the export stage."""

from pathlib import Path

from bingo.errors import BingoError
from bingo.export import ExportFormat
from bingo.export.beside import evaluated_resize
from bingo.export.detectron2 import export_detectron2
from bingo.export.huggingface import export_huggingface
from bingo.export.onnx import export_onnx
from bingo.export.safetensors import export_safetensors
from bingo.export.timm import export_timm
from bingo.export.torchvision import export_torchvision

_WEIGHTS = {"detectron2": export_detectron2, "timm": export_timm, "torchvision": export_torchvision}
"""Formats of weights alone."""
_DESCRIBED = {"huggingface": export_huggingface, "onnx": export_onnx, "safetensors": export_safetensors}
"""Formats that say how images become input, too."""


def export_backbone(model: Path, output: Path, to: ExportFormat, resize: int | None) -> None:
    """Write a backbone in a format that other software loads, with none of this project's code.

    Args:
        model: file of a student's backbone, or of a teacher, whose head is left out.
        output: file to write, or folder.
        to: the format.
        resize: shorter side before evaluation's crop; None for that of the results that lie beside the network, else
            what its file says, else 256/224 of the size.

    Raises:
        BingoError: a package is not installed, the file is missing or damaged, the format has no such network,
            ``output`` has the wrong ending, is the network itself or a folder that exists, or the format has no place
            for ``resize``.
    """
    if output.resolve() == model.resolve():
        raise BingoError(f"--output: {output} is the network itself, of which a part would be left; name another file")
    if to in _DESCRIBED:
        _DESCRIBED[to](model, output, evaluated_resize(model) if resize is None else resize)
    elif resize is None:
        _WEIGHTS[to](model, output)
    else:
        raise BingoError(f"--resize: a file for {to} holds weights alone and cannot say it; leave it out")
