"""Weights as safetensors files that carry their provenance and a digest. Imports torch only to touch tensors."""

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
    """Return the fingerprint of a state dict: SHA-256 over names, dtypes, shapes and bytes."""
    import torch

    total = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        total.update(f"{name} {tensor.dtype} {tuple(tensor.shape)};".encode())
        total.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return total.hexdigest()


def network_digest(metadata: Mapping[str, Any]) -> str:
    """Return the fingerprint of a network from the metadata of its file: of its weights, and of what they belong to.

    Networks of different kinds may have weights of the same names and shapes.
    """
    return digest_json([metadata["digest"], metadata.get("backbone"), metadata.get("activation")])


def write_tensors(path: Path, tensors: "Mapping[str, Tensor]", metadata: Mapping[str, Any]) -> None:
    """Write a state dict as safetensors; ``metadata`` and the tensors' digest go into its header as JSON."""
    import safetensors.torch

    whole = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    said = {**metadata, "digest": digest_tensors(whole)}
    header = {"bingo": json.dumps({**said, "checksum": digest_json(said)}, sort_keys=True)}
    with atomic_write(path) as temporary:
        # Not save_file: that hides a full disk in an error of its own and ignores the umask.
        temporary.write_bytes(safetensors.torch.save(whole, metadata=header))


def read_tensors(path: Path) -> "tuple[dict[str, Tensor], dict[str, Any]]":
    """Read what `write_tensors` wrote: (state dict, metadata).

    Raises:
        BingoError: the file is missing, damaged, not ours, or its tensors do not match their digest.
    """
    with _open_tensors(path, "pt") as file:
        metadata = _metadata(path, file)
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    if digest_tensors(tensors) != metadata["digest"]:
        raise BingoError(f"{path}: damaged (weights do not match their digest); delete it and run again")
    return tensors, metadata


@contextmanager
def _open_tensors(path: Path, framework: str) -> Iterator[Any]:
    try:
        with safetensors.safe_open(path, framework=framework) as file:
            yield file
    except FileNotFoundError as error:
        raise BingoError(f"{path}: no such file") from error
    except (safetensors.SafetensorError, OSError) as error:
        raise BingoError(f"{path}: damaged or no safetensors file ({error}); delete it and run again") from error


def _metadata(path: Path, file: Any) -> dict[str, Any]:
    header = (file.metadata() or {}).get("bingo")
    if header is None:
        raise BingoError(f"{path}: not written by bingo (no 'bingo' entry in its metadata)")
    try:
        metadata = json.loads(header)
    except ValueError:
        metadata = None
    # Files of before there was a checksum have none.
    sound = isinstance(metadata, dict) and "digest" in metadata
    if not sound or metadata.pop("checksum", None) not in (None, digest_json(metadata)):
        raise BingoError(f"{path}: damaged (its metadata are not those that bingo writes); delete it and run again")
    return metadata


def read_metadata(path: Path) -> dict[str, Any]:
    """Read what `write_tensors` wrote beside the tensors, without reading these.

    Raises:
        BingoError: the file is missing, damaged or not ours.
    """
    with _open_tensors(path, "np") as file:
        return _metadata(path, file)
