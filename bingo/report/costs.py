"""What each stage has cost, from the files in which Snakemake notes it."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from bingo.errors import BingoError


@dataclass(frozen=True)
class StageCost:
    """Sums over the jobs of a stage."""

    stage: str
    jobs: int
    """Jobs of which something is noted."""
    missing: int
    """Jobs of which nothing is noted: their results were made elsewhere."""
    total: str
    """Sum of wall times, as h:mm:ss."""
    longest: str
    """Longest job, as h:mm:ss."""
    memory: float
    """Largest resident memory of a job, in GiB; NaN if unknown, for very short jobs."""


class _JobCost(NamedTuple):
    seconds: float
    memory: float


def stage_costs(benchmarks: Mapping[str, Sequence[Path]]) -> list[StageCost]:
    """Return what each stage has cost.

    A job that was stopped and resumed counts from its last start.

    Args:
        benchmarks: of each stage, the files of its jobs (Snakemake's `benchmark:`).

    Raises:
        BingoError: a file is damaged.
    """
    costs = []
    for stage, paths in benchmarks.items():
        noted = [_read(path) for path in paths if path.exists()]
        seconds = [cost.seconds for cost in noted]
        costs.append(
            StageCost(
                stage,
                len(noted),
                len(paths) - len(noted),
                _clock(sum(seconds)),
                _clock(max(seconds, default=0)),
                float(pd.Series([cost.memory for cost in noted], dtype=float).max()),
            )
        )
    return costs


def _read(path: Path) -> _JobCost:
    try:
        row = pd.read_csv(path, sep="\t")[["s", "max_rss"]].iloc[-1]
        seconds = float(row["s"])
        if not 0 <= seconds < math.inf:
            raise ValueError(f"{seconds} seconds")
        return _JobCost(seconds, float(pd.to_numeric(row["max_rss"], errors="coerce")) / 1024)
    except (OSError, ValueError, KeyError, IndexError) as error:
        raise BingoError(f"{path}: no benchmark of Snakemake's ({error}); delete it") from error


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"
