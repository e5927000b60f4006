"""Provenance and digests of artifacts, and the check that an artifact matches its inputs."""

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
    """Describe how an artifact was made. Contains no dates, so that the same inputs give the same bytes.

    Args:
        stage: name of the stage, for example ``teacher``.
        stage_version: STAGE_VERSION of its job.
        settings: the stage's part of the resolved study.
        inputs: name and digest of each input.
        facts: other properties of the run (seed, device, precision, counts).
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
    """Return the SHA-256 of a JSON value, serialised with sorted keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def digest_arrays(arrays: Mapping[str, np.ndarray]) -> str:
    """Return the SHA-256 of the names, dtypes, shapes and bytes of arrays, independent of their order."""
    total = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        total.update(f"{name} {array.dtype.str} {array.shape};".encode())
        total.update(array.reshape(-1).view(np.uint8).data)
    return total.hexdigest()


def require_same(path: Path, what: str, actual: str, expected: str, source: Path) -> None:
    """Check that an artifact was made from ``source``.

    Args:
        path: the artifact.
        what: kind of ``source``, for the error message.
        actual: digest stored in the artifact.
        expected: digest of ``source``.
        source: file that the artifact must have been made from.

    Raises:
        BingoError: the digests differ.
    """
    if actual != expected:
        raise BingoError(
            f"{path}: belongs to another {what} ({actual[:12]}), not to {source} ({expected[:12]}); "
            "delete it and run again"
        )
