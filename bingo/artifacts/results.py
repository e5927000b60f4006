"""Result files: what a protocol found of one network with one seed."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bingo.artifacts.files import atomic_write_checked, read_checked
from bingo.artifacts.provenance import digest_json
from bingo.errors import BingoError


def write_result(
    path: Path,
    protocol: str,
    model: str,
    seed: int,
    metrics: Mapping[str, float],
    facts: Mapping[str, float],
    provenance: Mapping[str, Any],
) -> None:
    """Write what a protocol found as one JSON, with a digest of it all.

    Args:
        path: file to write.
        protocol: its name in tables.
        model: name of the teacher or student.
        seed: of the student's training, or of the teacher's.
        metrics: in percent.
        facts: what was chosen or counted on the way.
        provenance: how it came about.
    """
    result: dict[str, Any] = {
        "protocol": protocol,
        "model": model,
        "seed": seed,
        "metrics": dict(metrics),
        "facts": dict(facts),
        "provenance": dict(provenance),
    }
    result["digest"] = digest_json(result)
    with atomic_write_checked(path) as temporary:
        temporary.write_text(json.dumps(result, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def read_result(path: Path) -> dict[str, Any]:
    """Read a result file of the evaluation stage.

    Raises:
        BingoError: it is missing or damaged.
    """
    try:
        result = json.loads(read_checked(path))
        if result.pop("digest") != digest_json(result):
            raise ValueError("its content does not match its digest")
        named = isinstance(result["model"], str) and isinstance(result["protocol"], str)
        named = named and isinstance(result["seed"], int)
        if not named or not all(_is_number(value) for value in result["metrics"].values()):
            raise ValueError("its names are no text, or its seed or metrics no finite numbers")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise BingoError(f"{path}: no result file ({error}); delete it and run again") from error
    return dict(result)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
