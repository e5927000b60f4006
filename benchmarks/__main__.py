"""Run benchmarks and write their tables: `python -m benchmarks [NAME ...]`."""

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

from benchmarks.demo import demo_is_on_record
from benchmarks.measure import BenchmarkRow, device_name
from bingo.artifacts.files import write_text

FOLDER = Path("results/benchmarks")
# Imported only when run: some need packages that only `make bench` installs.
TABLES = {
    "benchmarks": ["loss", "steps", "views", "embed", "bags", "linear", "dag", "demo", "fashion"],
    "growth": ["growth"],
}
"""Modules by the table that their rows go to."""
_COLUMNS = ["benchmark", "ours", "reference", "ratio", "ceiling", "fraction_of_ceiling", "unit", "device"]
_COLUMNS += ["ratio_low", "ratio_high", "repeats", "goal"]
_PACKAGES = ("torch", "torchvision", "faiss-gpu", "h5py", "numpy", "snakemake", "lightly")


def main(names: Sequence[str]) -> None:
    """Run the named benchmarks and update a table after each.

    Without names, all run; the demo only if `demo_before.csv` has a run on this device.
    """
    known = [name for modules in TABLES.values() for name in modules]
    if unknown := sorted(set(names) - set(known)):
        sys.exit(f"unknown benchmarks: {', '.join(unknown)}; choose from {', '.join(known)}")
    cores = os.cpu_count() or 1  # like a stage with all cores
    os.environ["OMP_NUM_THREADS"] = str(cores)  # faiss reads it at import
    torch.set_num_threads(cores)
    chosen = names or [name for name in known if name != "demo" or demo_is_on_record()]
    started = time.perf_counter()
    for table, modules in TABLES.items():
        for name in modules:
            if name in chosen:
                print(f"{time.perf_counter() - started:5.0f} s  {name}", flush=True)
                measured = import_module(f"benchmarks.{name}").rows()
                write_table(FOLDER / table, measured, " ".join(["python -m benchmarks", *names]))
    print(f"{time.perf_counter() - started:5.0f} s  all in {FOLDER}")


def write_table(stem: Path, rows: Iterable[Any], command: str) -> None:
    """Write rows to a table as CSV and Markdown; they replace earlier rows of the same benchmark."""
    path = stem.with_suffix(".csv")
    table = frame_of(rows)
    if path.exists():
        table = merged(pd.read_csv(path), table)
    write_text(path, table.to_csv(index=False))
    cells = table.map(lambda value: f"{value:.4g}" if isinstance(value, float) else str(value)).where(table.notna(), "")
    text = cells.to_markdown(index=False, disable_numparse=True)
    write_text(stem.with_suffix(".md"), f"{_head(command)}\n\n{text}\n")


def frame_of(rows: Iterable[Any]) -> pd.DataFrame:
    """Return dataclass instances of one kind as a table."""
    rows = list(rows)
    names = _COLUMNS if isinstance(rows[0], BenchmarkRow) else [field.name for field in fields(rows[0])]
    return pd.DataFrame([asdict(row) for row in rows], columns=names)


def merged(old: pd.DataFrame, new: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of both tables; new rows replace old ones with the same first column, at their position."""
    key = new.columns[0]
    position = {name: number for number, name in reversed(list(enumerate(old[key])))}
    remaining = old[~old[key].isin(new[key])]
    both = pd.concat([remaining, new.astype(object)]) if len(remaining) else new
    order = both[key].map(lambda name: position.get(name, len(old)))
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
