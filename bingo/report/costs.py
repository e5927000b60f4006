"""Run time and memory of each stage, from Snakemake's benchmark files."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from bingo.errors import BingoError


@dataclass(frozen=True)
class StageCost:
    """Cost of all jobs of a stage."""

    stage: str
    jobs: int
    """Jobs with a benchmark file."""
    missing: int
    """Jobs without a benchmark file, for example because their results were copied."""
    total: str
    """Sum of wall times, as h:mm:ss."""
    longest: str
    """Wall time of the longest job, as h:mm:ss."""
    memory: float
    """Maximum resident memory of a job, in GiB; NaN if unknown, as for very short jobs."""


class _JobCost(NamedTuple):
    seconds: float
    memory: float


def stage_costs(benchmarks: Mapping[str, Sequence[Path]]) -> list[StageCost]:
    """Return the cost of each stage.

    A resumed job counts from its last start.

    Args:
        benchmarks: benchmark files of the jobs, by stage.

    Raises:
        BingoError: a file is damaged.
    """
    costs = []
    for stage, paths in benchmarks.items():
        jobs = [_read(path) for path in paths if path.exists()]
        seconds = [cost.seconds for cost in jobs]
        costs.append(
            StageCost(
                stage,
                len(jobs),
                len(paths) - len(jobs),
                _clock(sum(seconds)),
                _clock(max(seconds, default=0)),
                float(pd.Series([cost.memory for cost in jobs], dtype=float).max()),
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
        raise BingoError(f"{path}: is not a benchmark file of Snakemake ({error}); delete it") from error


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"
