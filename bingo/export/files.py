"""Atomic writing of exported files and folders."""

import io
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor

from bingo.artifacts.files import atomic_write
from bingo.errors import BingoError


def require_suffix(output: Path, *suffixes: str) -> None:
    """Check that ``output`` has a suffix that readers of the format accept.

    Raises:
        BingoError: ``output`` does not end in one of ``suffixes``.
    """
    if output.suffix not in suffixes:
        expected = " or ".join(suffixes)
        raise BingoError(f"{output}: readers of this format expect the suffix {expected}; change the name")


def write_weights(output: Path, weights: Mapping[str, Tensor]) -> None:
    """Write a state dict, as safetensors if the suffix is ``.safetensors``, else by `torch.save`.

    Raises:
        BingoError: the file cannot be written.
    """
    copies = {name: tensor.detach().contiguous().clone() for name, tensor in weights.items()}
    if output.suffix == ".safetensors":
        content = safetensors.torch.save(copies, metadata={"format": "pt"})
    else:
        stream = io.BytesIO()  # torch.save to a file would store the temporary file name
        torch.save(copies, stream)
        content = stream.getvalue()
    with atomic_write(output) as temporary:
        temporary.write_bytes(content)


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder; rename it to ``path`` if the block succeeds, else remove it.

    Raises:
        BingoError: ``path`` exists or cannot be written.
    """
    if path.exists():
        raise BingoError(f"{path}: exists already; remove it, or choose another name")
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        shutil.rmtree(temporary, ignore_errors=True)  # left by a killed process
        temporary.mkdir(parents=True)
        try:
            yield temporary
            temporary.rename(path)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    except OSError as error:
        message = f"{path}: cannot be written ({error.strerror or error}); check space and permissions"
        raise BingoError(message) from error
