"""Weights as safetensors files with provenance and a digest. Imports torch only in functions that handle tensors."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import safetensors

from bingo.artifacts.files import atomic_write
from bingo.artifacts.provenance import digest_json
from bingo.errors import BingoError

if TYPE_CHECKING:
    from torch import Tensor


def digest_tensors(tensors: "Mapping[str, Tensor]") -> str:
    """Return the SHA-256 of the names, dtypes, shapes and bytes of a state dict."""
    import torch

    total = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        total.update(f"{name} {tensor.dtype} {tuple(tensor.shape)};".encode())
        total.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return total.hexdigest()


def network_digest(metadata: Mapping[str, Any]) -> str:
    """Return the digest of a network's weights and architecture, from the metadata of its file.

    The weights alone are not enough: different architectures can have parameters of the same names and shapes.
    """
    return digest_json([metadata["digest"], metadata.get("backbone"), metadata.get("activation")])


def write_tensors(path: Path, tensors: "Mapping[str, Tensor]", metadata: Mapping[str, Any]) -> None:
    """Write a state dict as safetensors, with ``metadata`` and the tensors' digest as JSON in the header."""
    import safetensors.torch

    state = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    entry = {**metadata, "digest": digest_tensors(state)}
    header = {"bingo": json.dumps({**entry, "checksum": digest_json(entry)}, sort_keys=True)}
    with atomic_write(path) as temporary:
        # Not save_file: it ignores the umask, and its error for a full disk is not an OSError.
        temporary.write_bytes(safetensors.torch.save(state, metadata=header))


def read_tensors(path: Path) -> "tuple[dict[str, Tensor], dict[str, Any]]":
    """Read a file written by `write_tensors`: (state dict, metadata).

    Raises:
        BingoError: the file does not exist, is damaged or was not written by bingo.
    """
    with _open_tensors(path, "pt") as file:
        metadata = _metadata(path, file)
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    if digest_tensors(tensors) != metadata["digest"]:
        raise BingoError(f"{path}: is damaged (weights do not match their digest); delete it and run again")
    return tensors, metadata


@contextmanager
def _open_tensors(path: Path, framework: str) -> Iterator[Any]:
    try:
        with safetensors.safe_open(path, framework=framework) as file:
            yield file
    except FileNotFoundError as error:
        raise BingoError(f"{path}: no such file") from error
    except (safetensors.SafetensorError, OSError) as error:
        raise BingoError(f"{path}: is damaged or not a safetensors file ({error}); delete it and run again") from error


def _metadata(path: Path, file: Any) -> dict[str, Any]:
    header = (file.metadata() or {}).get("bingo")
    if header is None:
        raise BingoError(f"{path}: not written by bingo (no 'bingo' entry in its metadata)")
    try:
        metadata = json.loads(header)
    except ValueError:
        metadata = None
    # Files of older versions have no checksum.
    valid = isinstance(metadata, dict) and "digest" in metadata
    if not valid or metadata.pop("checksum", None) not in (None, digest_json(metadata)):
        raise BingoError(f"{path}: is damaged (metadata does not match its checksum); delete it and run again")
    return metadata


def read_metadata(path: Path) -> dict[str, Any]:
    """Read the metadata of a file written by `write_tensors`, without the tensors.

    Raises:
        BingoError: the file does not exist, is damaged or was not written by bingo.
    """
    with _open_tensors(path, "np") as file:
        return _metadata(path, file)
