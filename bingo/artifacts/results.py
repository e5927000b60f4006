"""Result files: the metrics of one network and seed under one evaluation protocol."""

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
    """Write the result of an evaluation as a JSON file that includes its own digest.

    Args:
        path: file to write.
        protocol: name of the protocol in tables.
        model: name of the teacher or student.
        seed: training seed of the student or teacher.
        metrics: metrics in percent.
        facts: selected hyperparameters and counts.
        provenance: how the result was made.
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
    """Read a result file.

    Raises:
        BingoError: the file does not exist or is damaged.
    """
    try:
        result = json.loads(read_checked(path))
        if result.pop("digest") != digest_json(result):
            raise ValueError("its content does not match its digest")
        valid = isinstance(result["model"], str) and isinstance(result["protocol"], str)
        valid = valid and isinstance(result["seed"], int)
        if not valid or not all(_is_number(value) for value in result["metrics"].values()):
            raise ValueError("model and protocol must be strings, seed and metrics finite numbers")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise BingoError(f"{path}: no result file ({error}); delete it and run again") from error
    return dict(result)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
