"""Entry points of the figures stage."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib

matplotlib.use("agg")
import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from bingo.artifacts import atomic
from bingo.errors import BingoError
from bingo.tables.stage import read_table

# Okabe and Ito's palette, distinct to colour-blind readers.
_COLOURS = ["#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#000000"]


def draw_accuracy(table: Path, outputs: Sequence[Path]) -> None:
    """Draw a table as bars: a group per protocol, a bar per network, top-1 with its standard deviation."""
    frame = read_table(table)
    frame = frame[frame["metric"] == "top1"].dropna(subset=["mean"])
    protocols = list(frame["protocol"].unique())
    networks = list(dict.fromkeys(zip(frame["method"], frame["student"], frame["teacher"], strict=True)))
    figure, axes = _figure(bars=len(protocols) * len(networks))
    width = 0.8 / max(len(networks), 1)
    for i, (method, student, teacher) in enumerate(networks):
        own = frame[(frame["student"] == student) & (frame["teacher"] == teacher) & (frame["method"] == method)]
        own = own.set_index("protocol").reindex(protocols)
        places = [p + (i - (len(networks) - 1) / 2) * width for p in range(len(protocols))]
        label = f"{student} ({method})" if student else f"teacher {teacher} ({method})"
        bars = axes.bar(
            places,
            own["mean"],
            0.9 * width,
            yerr=own["std"],
            label=label,
            color=_COLOURS[i % 8],
            hatch=("", "///", "...")[i // 8 % 3],
            edgecolor="white",
            capsize=3,
        )
        axes.bar_label(bars, fmt="%.1f", fontsize=7, padding=2)
    if networks:
        axes.legend(fontsize=8, ncols=2, loc="upper center", bbox_to_anchor=(0.5, -0.1), frameon=False)
    axes.set(xticks=range(len(protocols)), xticklabels=protocols, ylim=(0, 105), ylabel="top-1 accuracy in %")
    _save(figure, outputs)


def draw_training(logs: Mapping[str, Path], outputs: Sequence[Path]) -> None:
    """Draw the training loss of every run over its epochs; ``logs`` maps names to log files.

    Runs named ``<student>/seed-<n>`` share their student's colour.
    """
    figure, axes = _figure()
    groups = list(dict.fromkeys(name.partition("/")[0] for name in logs))
    for name, path in logs.items():
        group = groups.index(name.partition("/")[0])
        rows = _read_log(path)
        first = next(other for other in logs if other.partition("/")[0] == groups[group]) == name
        axes.plot(
            rows["epoch"],
            rows["loss"],
            color=_COLOURS[group % 8],
            linestyle=("-", "--", ":", "-.")[group // 8 % 4],
            label=groups[group] if first else None,
        )
    axes.set(xlabel="epoch", ylabel="training loss")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(fontsize=8, frameon=False)
    _save(figure, outputs)


def _read_log(path: Path) -> pd.DataFrame:
    try:
        return pd.read_csv(path, dtype={"epoch": int, "loss": float})[["epoch", "loss"]]
    except (OSError, ValueError, KeyError) as error:
        raise BingoError(f"{path}: missing or no training log ({error}); delete it and run again") from error


def _figure(bars: int = 0) -> tuple[Figure, plt.Axes]:
    """Return a figure wide enough for the number above each of so many bars."""
    # The salt and the missing date make equal inputs give equal files.
    plt.rcParams.update({"svg.hashsalt": "bingo", "svg.fonttype": "none"})
    figure, axes = plt.subplots(figsize=(max(7, 0.45 * bars), 4), layout="constrained")
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _save(figure: Figure, outputs: Sequence[Path]) -> None:
    for output in outputs:
        metadata = {"Date": None} if output.suffix == ".svg" else {"Software": None}
        with atomic(output) as temporary:
            figure.savefig(temporary, dpi=150, metadata=metadata)
    plt.close(figure)
