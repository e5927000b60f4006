"""What each stage has cost, from the files in which Snakemake notes it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

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
    """Largest resident memory of a job, in GB; NaN if unknown, for very short jobs."""


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
        seconds = [float(row["s"]) for row in noted]
        memory = pd.to_numeric(pd.Series([row["max_rss"] for row in noted], dtype=object), errors="coerce")
        costs.append(
            StageCost(
                stage,
                len(noted),
                len(paths) - len(noted),
                _clock(sum(seconds)),
                _clock(max(seconds, default=0)),
                float(memory.max()) / 1024,
            )
        )
    return costs


def _read(path: Path) -> pd.Series:
    try:
        return pd.read_csv(path, sep="\t")[["s", "max_rss"]].iloc[-1]
    except (OSError, ValueError, KeyError, IndexError) as error:
        raise BingoError(f"{path}: no benchmark of Snakemake's ({error}); delete it") from error


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"
