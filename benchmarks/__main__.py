"""Run benchmarks and write what they measured: `python -m tests.benchmarks [NAME ...]`."""

import os
import platform
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, fields
from datetime import UTC, datetime
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from bingo.artifacts.files import write_text
from tests.benchmarks.demo import demo_is_on_record
from tests.benchmarks.measure import Row, device_name

FOLDER = Path("results/benchmarks")
# Imported only where they are run: some need packages that only the environment of `make bench` has.
TABLES = {
    "benchmarks": ["loss", "steps", "views", "embed", "bags", "linear", "dag", "demo", "fashion"],
    "growth": ["growth"],
}
"""Which modules' rows stand in which table."""
_COLUMNS = ["benchmark", "ours", "reference", "ratio", "ceiling", "fraction_of_ceiling", "unit", "device"]
_COLUMNS += ["ratio_low", "ratio_high", "repeats", "goal"]
_PACKAGES = ("torch", "torchvision", "faiss-gpu", "h5py", "numpy", "snakemake", "lightly")


def main(names: Sequence[str]) -> None:
    """Run the named benchmarks, and write a table after each of them.

    Where none are named, all are run, but for the demo where there is nothing to compare its time with.
    """
    known = [name for modules in TABLES.values() for name in modules]
    if unknown := sorted(set(names) - set(known)):
        sys.exit(f"there are no benchmarks {', '.join(unknown)}; there are {', '.join(known)}")
    cores = os.cpu_count() or 1  # as a stage that has all of them
    os.environ["OMP_NUM_THREADS"] = str(cores)  # faiss reads it when it is imported
    torch.set_num_threads(cores)
    chosen = names or [name for name in known if name != "demo" or demo_is_on_record()]
    started = time.perf_counter()
    for table, modules in TABLES.items():
        for name in modules:
            if name in chosen:
                print(f"{time.perf_counter() - started:5.0f} s  {name}", flush=True)
                measured = import_module(f"tests.benchmarks.{name}").rows()
                write_table(FOLDER / table, measured, " ".join(["python -m tests.benchmarks", *names]))
    print(f"{time.perf_counter() - started:5.0f} s  all in {FOLDER}")


def write_table(stem: Path, rows: Iterable[Any], command: str) -> None:
    """Put rows in a table, in place of those that measured the same before, as CSV and as Markdown."""
    path = stem.with_suffix(".csv")
    found = frame_of(rows)
    if path.exists():
        found = merged(pd.read_csv(path), found)
    write_text(path, found.to_csv(index=False))
    shown = found.map(lambda value: f"{value:.4g}" if isinstance(value, float) else str(value)).where(found.notna(), "")
    text = shown.to_markdown(index=False, disable_numparse=True)
    write_text(stem.with_suffix(".md"), f"{_head(command)}\n\n{text}\n")


def frame_of(rows: Iterable[Any]) -> pd.DataFrame:
    """Return rows, dataclasses of one kind, as a table."""
    rows = list(rows)
    names = _COLUMNS if isinstance(rows[0], Row) else [field.name for field in fields(rows[0])]
    return pd.DataFrame([asdict(row) for row in rows], columns=names)


def merged(old: pd.DataFrame, new: pd.DataFrame) -> pd.DataFrame:
    """Return both tables' rows; of those whose first column is the same only the new ones, in the old ones' place."""
    key = new.columns[0]
    place = {name: number for number, name in reversed(list(enumerate(old[key])))}
    kept = old[~old[key].isin(new[key])]
    both = pd.concat([kept, new.astype(object)]) if len(kept) else new
    order = both[key].map(lambda name: place.get(name, len(old)))
    return both.iloc[order.argsort(kind="stable")].reset_index(drop=True)


def _head(command: str) -> str:
    versions = [f"Python {platform.python_version()}"]
    for name in _PACKAGES:
        try:
            versions.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            versions.append(f"no {name}")
    return f"`{command}`, {datetime.now(UTC):%Y-%m-%d}, on {device_name()}.\n\n{', '.join(versions)}."


if __name__ == "__main__":
    main(sys.argv[1:])
