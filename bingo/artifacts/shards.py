"""Split a stage's rows into shards for separate jobs, and merge the shards into the result of a single job."""

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
    """Return the rows of one part, split at multiples of ``unit``. A part may be empty.

    Args:
        part: number of the part and number of parts, for example `3-of-8`.
        count: total number of rows.
        unit: rows that are computed together; rounding may depend on it.

    Raises:
        BingoError: ``part`` is malformed or out of range.
    """
    match = re.fullmatch(r"(\d+)-of-(\d+)", part)
    number, parts = (int(match[1]), int(match[2])) if match else (0, 0)
    if not 1 <= number <= parts:
        raise BingoError(f"--part: must be NUMBER-of-PARTS, for example 3-of-8, got {part}")
    blocks = -(-count // unit)
    low, high = (min(blocks * edge // parts * unit, count) for edge in (number - 1, number))
    return range(low, high)


def shard_attributes(kind: str, rows: range, origin: Mapping[str, Any]) -> dict[str, Any]:
    """Return the HDF5 attributes of a shard.

    Args:
        kind: kind of artifact.
        rows: rows in the shard.
        origin: settings and inputs; equal for all shards of one result.
    """
    return {"kind": kind, "start": rows.start, "stop": rows.stop, "origin": digest_json(dict(origin))}


@dataclass(frozen=True)
class Shard:
    """A file that contains a range of rows."""

    path: Path
    rows: range


def require_complete_shards(paths: Sequence[Path], kind: str, count: int, origin: Mapping[str, Any]) -> list[Shard]:
    """Return the non-empty shards, sorted by their rows.

    Raises:
        BingoError: a shard does not exist, is damaged or has other settings or inputs, or the shards together do not
            cover all ``count`` rows exactly once.
    """
    shards = []
    for path in paths:
        with read_hdf5(path, kind) as file:
            if file.attrs["origin"] != digest_json(dict(origin)):
                raise BingoError(f"{path}: was computed with other settings or inputs; delete it and run again")
            shards.append(Shard(path, range(int(file.attrs["start"]), int(file.attrs["stop"]))))
    shards = sorted((shard for shard in shards if len(shard.rows)), key=lambda shard: shard.rows.start)
    done = 0
    for shard in shards:
        if shard.rows.start != done:
            raise BingoError(
                f"{shard.path}: starts at row {shard.rows.start:,}, expected {done:,}; pass each shard once"
            )
        done = shard.rows.stop
    if done < count:
        raise BingoError(f"--shards: rows {done:,} to {count - 1:,} are missing; pass all shards")
    if done > count:
        raise BingoError(f"{shards[-1].path}: ends at row {done:,}, but there are only {count:,} rows; leave it out")
    return shards


def require_rows(shard: Shard, dataset: h5py.Dataset, dtype: DTypeLike) -> None:
    """Check that a shard's dataset is 2-D, of type ``dtype``, and has one row for each row of the shard.

    Raises:
        BingoError: it does not.
    """
    if dataset.ndim != 2 or len(dataset) != len(shard.rows) or dataset.dtype != dtype:
        raise damaged_shard(shard, f"contains {dataset.dtype} {dataset.shape}")


def damaged_shard(shard: Shard, why: str) -> BingoError:
    """Return the error for a damaged shard."""
    return BingoError(f"{shard.path}: is damaged ({why}); delete it and run again")
