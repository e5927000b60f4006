"""Figure of training curves: the loss of each run by epoch."""

import io
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd
from matplotlib.ticker import MaxNLocator

from bingo.artifacts.files import read_checked
from bingo.errors import BingoError, nearest
from bingo.report.style import WIDTH, line_style, new_figure, save, styled

_COLUMNS = 3
_ROW_HEIGHT, _LEGEND_HEIGHT = 1.9, 0.14
"""Inches."""
_TITLE_WIDTH = 34
"""Maximum number of characters in a line of a panel title."""


@styled
def draw_training(titles: Mapping[str, str], logs: Mapping[str, Path], outputs: Sequence[Path]) -> None:
    """Draw the training loss of each run by epoch; runs with comparable losses share a panel.

    Args:
        titles: panel title of each teacher and student.
        logs: log files by run: the name of a teacher, or ``<student>/seed-<n>``. All seeds of a student have the same
            style.
        outputs: SVG or PNG files to write.

    Raises:
        BingoError: a log is missing or damaged, or belongs to a network without a panel.
    """
    panels = training_panels(titles, logs)
    columns = min(len(panels), _COLUMNS)
    rows = -(-len(panels) // _COLUMNS)
    longest = max(len(networks) for networks in panels.values())
    figure = new_figure(max(columns / _COLUMNS * WIDTH, WIDTH / 2), rows * (_ROW_HEIGHT + _LEGEND_HEIGHT * longest))
    grid = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axes, (title, networks) in zip(grid, panels.items(), strict=False):
        for number, (network, paths) in enumerate(networks.items()):
            for i, path in enumerate(paths):
                curve = _read_log(path)
                marker = "o" if len(curve) == 1 else ""
                label = "" if i else network
                axes.plot(curve["epoch"], curve["loss"], marker=marker, label=label, **line_style(number))
        axes.set_title(textwrap.fill(title, _TITLE_WIDTH))
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, 0), borderaxespad=4.5, handlelength=3)
    for axes in grid[::columns]:
        axes.set_ylabel("training loss")
    for axes in grid[len(panels) :]:
        axes.remove()
    save(figure, outputs)


def training_panels(panels: Mapping[str, str], logs: Mapping[str, Path]) -> dict[str, dict[str, list[Path]]]:
    """Return the logs by panel and network, in the order of ``logs``.

    Raises:
        BingoError: a network has no panel.
    """
    networks: dict[str, dict[str, list[Path]]] = {}
    for name, path in logs.items():
        network = name.partition("/")[0]
        if network not in panels:
            raise BingoError(f"training figure: {name} has no panel{nearest(network, panels)}; add it to panels")
        networks.setdefault(panels[network], {}).setdefault(network, []).append(path)
    return networks


def _read_log(path: Path) -> pd.DataFrame:
    try:
        return pd.read_csv(io.BytesIO(read_checked(path)), dtype={"epoch": int, "loss": float})[["epoch", "loss"]]
    except (OSError, ValueError, KeyError) as error:
        raise BingoError(f"{path}: is not a training log ({error}); delete it and run again") from error
