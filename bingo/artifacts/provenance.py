"""Where an artifact comes from, and whether it belongs to the inputs it is used with."""

import hashlib
import json
from collections.abc import Mapping
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from bingo.errors import BingoError

_PACKAGES = ("bingo-distillation", "faiss-gpu", "h5py", "numpy", "torch", "torchvision")


def provenance(
    stage: str, stage_version: int, settings: Mapping[str, Any], inputs: Mapping[str, str], **facts: Any
) -> dict[str, Any]:
    """Describe how an artifact came about. No dates: the same inputs give the same bytes.

    Args:
        stage: name of the stage, ``teacher`` say.
        stage_version: its STAGE_VERSION.
        settings: the part of the resolved study that the stage was given.
        inputs: name of each input and its digest.
        facts: whatever else describes the run (seed, device, precision, counts).
    """
    packages = {}
    for name in _PACKAGES:
        with suppress(PackageNotFoundError):
            packages[name] = version(name)
    return {
        "stage": stage,
        "version": stage_version,
        "settings": dict(settings),
        "inputs": dict(inputs),
        "packages": packages,
        **facts,
    }


def digest_json(value: Any) -> str:
    """Return the SHA-256 of a JSON value in canonical form (sorted keys)."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def digest_arrays(arrays: Mapping[str, np.ndarray]) -> str:
    """Return the SHA-256 over names, dtypes, shapes and bytes of arrays, independent of their order."""
    total = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        total.update(f"{name} {array.dtype.str} {array.shape};".encode())
        total.update(array.reshape(-1).view(np.uint8).data)
    return total.hexdigest()


def require_same(path: Path, what: str, found: str, expected: str, source: Path) -> None:
    """Refuse an artifact that was made from something else.

    Raises:
        BingoError: ``found`` is not ``expected``, the digest of ``source``.
    """
    if found != expected:
        raise BingoError(
            f"{path}: belongs to another {what} ({found[:12]}) than {source} ({expected[:12]}); delete it and run again"
        )
