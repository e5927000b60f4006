"""What lies in a file of weights. It may be anybody's, so nothing in it is ever executed."""

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
    """The weights in a file."""

    state: dict[str, Tensor]
    """Names and tensors, without ``module.`` where every name had it."""
    place: str
    """Where in the file they are."""
    beside: list[str]
    """What else the file holds."""
    metadata: dict[str, Any] = field(default_factory=dict)
    """What a file of this project says of itself."""


def read_contents(path: Path) -> CheckpointContents:
    """Read a file of PyTorch or safetensors weights.

    Raises:
        BingoError: the file is missing or damaged, holds no weights, or would have to be executed.
    """
    if not path.is_file():
        raise BingoError(f"{path}: is a folder; name a file in it" if path.is_dir() else f"{path}: no such file")
    contents = _safetensors(path) if path.suffix == ".safetensors" else _state_dict(_unpickled(path))
    if not contents.state:
        held = ascii(contents.beside[:8]) if contents.beside else "nothing"
        raise BingoError(f"{path}: holds no weights (but {held}); save a network's state dict")
    if not all(name.isprintable() for name in (*contents.state, *contents.beside)):
        raise BingoError(f"{path}: damaged (its names are no text); fetch it again")
    return contents


def _unpickled(path: Path) -> Any:
    try:
        if zipfile.is_zipfile(path) and zipfile.ZipFile(path).testzip():  # torch.load does not look at checksums
            raise zipfile.BadZipFile
        with torch.serialization.safe_globals([argparse.Namespace]):  # the settings that training scripts keep
            return torch.load(path, map_location="cpu", weights_only=True)
    except PermissionError as error:
        raise BingoError(f"{path}: cannot be read; check its rights") from error
    except Exception as error:  # on damaged bytes the unpickler raises nearly anything
        wanted = re.search(r"GLOBAL ([\w.]+)", str(error))
        raise BingoError(
            f"{path}: refused, because its pickle wants {wanted[1]}, and could so run any program; "
            "load it where you trust it and save only its state dict"
            if wanted
            else f"{path}: no file that torch.save wrote, or damaged; fetch it again, or save a network's state dict"
        ) from error


def _state_dict(root: Any) -> CheckpointContents:
    entries = root if isinstance(root, dict) else {}
    inner = [name for name in ("state_dict", "model") if isinstance(entries.get(name), dict)][:1]
    networks = [name for name in ("teacher", "student") if isinstance(entries.get(name), dict)]
    beside = [str(name) for name in entries if name not in (inner or networks)]
    if inner:
        return _unwrapped(entries[inner[0]], f"['{inner[0]}']", beside)
    if networks:
        parts = {name: _unwrapped(entries[name], "", []).state for name in networks}
        state = {f"{name}.{key}": tensor for name, part in parts.items() for key, tensor in part.items()}
        return CheckpointContents(state, " and ".join(f"['{name}']" for name in networks), beside)
    return _unwrapped(entries, "the file", [])


def _unwrapped(entries: Mapping[Any, Any], place: str, beside: list[str]) -> CheckpointContents:
    state = {str(name): value for name, value in entries.items() if isinstance(value, Tensor)}
    beside = beside + [str(name) for name, value in entries.items() if not isinstance(value, Tensor)]
    if state and all(name.startswith("module.") for name in state):
        return CheckpointContents(
            {name.removeprefix("module."): value for name, value in state.items()}, place + WRAPPED, beside
        )
    return CheckpointContents(state, place, beside)


def _safetensors(path: Path) -> CheckpointContents:
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            own = "bingo" in (file.metadata() or {})
            state = {} if own else {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except Exception as error:  # as above
        raise BingoError(f"{path}: damaged or no safetensors file ({error}); fetch it again") from error
    return _own(path) if own else _unwrapped(state, "the file", [])


def _own(path: Path) -> CheckpointContents:
    """Read a teacher of this project, or a student: its backbone, and the head that lies beside it."""
    state, metadata = read_tensors(path)
    if any(name.startswith("backbone.") for name in state):
        return CheckpointContents(state, "a teacher of this project", [], metadata)
    beside = path.with_name("head.safetensors")
    if path.name == beside.name:
        raise BingoError(f"{path}: is a student's head; name the backbone.safetensors beside it")
    if not beside.is_file():
        raise BingoError(f"{path}: the student's {beside.name} is not beside it; copy both")
    head, head_metadata = read_tensors(beside)
    if {**metadata, "digest": None} != {**head_metadata, "digest": None}:
        raise BingoError(f"{path}: {beside.name} beside it is another student's; copy both files of one")
    whole = {f"backbone.{name}": value for name, value in state.items()}
    whole |= {f"head.{name}": value for name, value in head.items()}
    return CheckpointContents(whole, "a student of this project", [], metadata)
