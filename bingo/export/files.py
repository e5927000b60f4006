"""Files and folders of an export, written whole or not at all."""

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
    """Refuse a name by which the format's reader would take the file for another one's.

    Raises:
        BingoError: ``output`` ends in none of ``suffixes``.
    """
    if output.suffix not in suffixes:
        expected = " or ".join(suffixes)
        raise BingoError(f"{output}: readers of this format expect names that end in {expected}; choose such a name")


def write_weights(output: Path, weights: Mapping[str, Tensor]) -> None:
    """Write a state dict by itself: as safetensors where the name ends so, else as `torch.load` reads it.

    Raises:
        BingoError: the file cannot be written.
    """
    whole = {name: tensor.detach().contiguous().clone() for name, tensor in weights.items()}
    if output.suffix == ".safetensors":
        content = safetensors.torch.save(whole, metadata={"format": "pt"})
    else:
        stream = io.BytesIO()  # in a file of its own, torch would note the temporary name
        torch.save(whole, stream)
        content = stream.getvalue()
    with atomic_write(output) as temporary:
        temporary.write_bytes(content)


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder beside ``path``; rename it to ``path`` if the block ends well, else remove it.

    Raises:
        BingoError: ``path`` exists, or the file system refuses.
    """
    if path.exists():
        raise BingoError(f"{path}: exists already; remove it, or choose another name")
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        shutil.rmtree(temporary, ignore_errors=True)  # of one that was killed
        temporary.mkdir(parents=True)
        try:
            yield temporary
            temporary.rename(path)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    except OSError as error:
        raise BingoError(f"{path}: cannot be written ({error.strerror or error}); check space and rights") from error
