"""Parts of a stage's rows that are made by jobs of their own, and gathered to what one job would have made."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
from numpy.typing import DTypeLike

from bingo.artifacts.hdf5 import read_hdf5
from bingo.artifacts.provenance import digest_json
from bingo.errors import BingoError


def part_rows(part: str, count: int, unit: int) -> range:
    """Return the rows of one part of ``count``, cut at multiples of ``unit``; few rows leave some parts empty.

    Args:
        part: `3-of-8`, say.
        count: rows of all parts together.
        unit: rows that are computed together, on which rounding may depend.

    Raises:
        BingoError: there is no such part.
    """
    match = re.fullmatch(r"(\d+)-of-(\d+)", part)
    number, parts = (int(match[1]), int(match[2])) if match else (0, 0)
    if not 1 <= number <= parts:
        raise BingoError(f"--part: is NUMBER-of-PARTS, 3-of-8 say, found {part}")
    blocks = -(-count // unit)
    low, high = (min(blocks * edge // parts * unit, count) for edge in (number - 1, number))
    return range(low, high)


def shard_attributes(kind: str, rows: range, origin: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a shard's file says of itself.

    Args:
        kind: of artifact.
        rows: that it holds.
        origin: settings and inputs, as JSON: all shards that are gathered have the same.
    """
    return {"kind": kind, "start": rows.start, "stop": rows.stop, "origin": digest_json(dict(origin))}


@dataclass(frozen=True)
class Shard:
    """A file of some rows."""

    path: Path
    rows: range


def require_complete_shards(paths: Sequence[Path], kind: str, count: int, origin: Mapping[str, Any]) -> list[Shard]:
    """Return shards in the order of their rows, those without rows left out.

    Raises:
        BingoError: one is missing, damaged or of other settings or inputs, or together they are not all ``count`` rows.
    """
    shards = []
    for path in paths:
        with read_hdf5(path, kind) as file:
            if file.attrs["origin"] != digest_json(dict(origin)):
                raise BingoError(f"{path}: was made with other settings or inputs; delete it and run again")
            shards.append(Shard(path, range(int(file.attrs["start"]), int(file.attrs["stop"]))))
    shards = sorted((shard for shard in shards if len(shard.rows)), key=lambda shard: shard.rows.start)
    done = 0
    for shard in shards:
        if shard.rows.start != done:
            raise BingoError(
                f"{shard.path}: begins with row {shard.rows.start:,} where {done:,} is needed; name all shards"
            )
        done = shard.rows.stop
    if done < count:
        raise BingoError(f"--shards: the last of {count:,} rows is missing; name all shards")
    if done > count:
        raise BingoError(f"{shards[-1].path}: ends with row {done:,}, but there are but {count:,} rows; leave it out")
    return shards


def require_rows(shard: Shard, dataset: h5py.Dataset, dtype: DTypeLike) -> None:
    """Refuse a shard whose arrays are not as long as it says, or of another type.

    Raises:
        BingoError: they are not.
    """
    if dataset.ndim != 2 or len(dataset) != len(shard.rows) or dataset.dtype != dtype:
        raise damaged_shard(shard, f"holds {dataset.dtype} {dataset.shape}")


def damaged_shard(shard: Shard, why: str) -> BingoError:
    """Return what is said of a shard that cannot be gathered."""
    return BingoError(f"{shard.path}: damaged ({why}); delete it and run again")
