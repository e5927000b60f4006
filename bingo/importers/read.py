"""Read a checkpoint without executing anything in it, because its source may not be trusted."""

import argparse
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors
import torch
from torch import Tensor

from bingo.artifacts.tensors import read_tensors
from bingo.errors import BingoError
from bingo.importers.formats import WRAPPED


@dataclass(frozen=True)
class CheckpointContents:
    """Contents of a checkpoint."""

    state: dict[str, Tensor]
    """Tensors by name, without ``module.`` if every name had it."""
    location: str
    """Location of the tensors in the file."""
    other_entries: list[str]
    """Names of the other entries of the file."""
    metadata: dict[str, Any] = field(default_factory=dict)
    """Metadata of a file of this project; empty for other files."""


def read_contents(path: Path) -> CheckpointContents:
    """Read a checkpoint of PyTorch or safetensors.

    Raises:
        BingoError: the file is missing or damaged, has no weights, or contains code.
    """
    if not path.is_file():
        fault = "is a folder; name a file in it" if path.is_dir() else "no such file; correct the path"
        raise BingoError(f"{path}: {fault}")
    contents = _safetensors(path) if path.suffix == ".safetensors" else _state_dict(_unpickled(path))
    if not contents.state:
        entries = ascii(contents.other_entries[:8]) if contents.other_entries else "nothing"
        raise BingoError(f"{path}: has no weights (but {entries}); save a network's state dict")
    if not all(name.isprintable() for name in (*contents.state, *contents.other_entries)):
        raise BingoError(f"{path}: is damaged (names are not text); download it again")
    return contents


def _unpickled(path: Path) -> Any:
    try:
        if zipfile.is_zipfile(path) and zipfile.ZipFile(path).testzip():  # torch.load does not verify checksums
            raise zipfile.BadZipFile
        with torch.serialization.safe_globals([argparse.Namespace]):  # settings of many training scripts
            return torch.load(path, map_location="cpu", weights_only=True)
    except PermissionError as error:
        raise BingoError(f"{path}: cannot be read; check its permissions") from error
    except Exception as error:  # for damaged bytes, the unpickler raises almost any exception
        unsafe = re.search(r"GLOBAL ([\w.]+)", str(error))
        raise BingoError(
            f"{path}: is not loaded, because its pickle uses {unsafe[1]} and could run any code; "
            "if you trust the file, load it with torch and save only the state dict"
            if unsafe
            else f"{path}: is damaged or was not written by torch.save; download it again, or save a state dict"
        ) from error


def _state_dict(root: Any) -> CheckpointContents:
    entries = root if isinstance(root, dict) else {}
    inner = [name for name in ("state_dict", "model") if isinstance(entries.get(name), dict)][:1]
    networks = [name for name in ("teacher", "student") if isinstance(entries.get(name), dict)]
    other_entries = [str(name) for name in entries if name not in (inner or networks)]
    if inner:
        return _unwrapped(entries[inner[0]], f"['{inner[0]}']", other_entries)
    if networks:
        parts = {name: _unwrapped(entries[name], "", []).state for name in networks}
        state = {f"{name}.{key}": tensor for name, part in parts.items() for key, tensor in part.items()}
        return CheckpointContents(state, " and ".join(f"['{name}']" for name in networks), other_entries)
    return _unwrapped(entries, "the file", [])


def _unwrapped(entries: Mapping[Any, Any], location: str, other_entries: list[str]) -> CheckpointContents:
    state = {str(name): value for name, value in entries.items() if isinstance(value, Tensor)}
    others = other_entries + [str(name) for name, value in entries.items() if not isinstance(value, Tensor)]
    if state and all(name.startswith("module.") for name in state):
        return CheckpointContents(
            {name.removeprefix("module."): value for name, value in state.items()}, location + WRAPPED, others
        )
    return CheckpointContents(state, location, others)


def _safetensors(path: Path) -> CheckpointContents:
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            is_native = "bingo" in (file.metadata() or {})
            state = {} if is_native else {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except Exception as error:  # safetensors also raises almost any exception
        raise BingoError(f"{path}: is damaged or not a safetensors file ({error}); download it again") from error
    return _native(path) if is_native else _unwrapped(state, "the file", [])


def _native(path: Path) -> CheckpointContents:
    """Read a teacher of this project, or a student: its backbone and the head in the same folder."""
    state, metadata = read_tensors(path)
    if any(name.startswith("backbone.") for name in state):
        return CheckpointContents(state, "a teacher of this project", [], metadata)
    head_path = path.with_name("head.safetensors")
    if path.name == head_path.name:
        raise BingoError(f"{path}: is a student's head; name the backbone.safetensors in the same folder")
    if not head_path.is_file():
        raise BingoError(f"{path}: the student's {head_path.name} is missing; copy both files to the same folder")
    head, head_metadata = read_tensors(head_path)
    if {**metadata, "digest": None} != {**head_metadata, "digest": None}:
        raise BingoError(f"{path}: {head_path.name} belongs to another student; copy both files of one student")
    network = {f"backbone.{name}": value for name, value in state.items()}
    network |= {f"head.{name}": value for name, value in head.items()}
    return CheckpointContents(network, "a student of this project", [], metadata)
