"""A table as a dot plot, with one line per network and one panel per protocol.

Dots instead of bars, because differences are small (one point in 60). Bars from zero would hide them, and bars from
another origin would exaggerate them.
"""

from collections.abc import Mapping, Sequence
from math import isnan
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from bingo.report.networks import FigureRow, Panel, match_published_protocols, split_blocks, table_groups, table_panels
from bingo.report.style import METRICS, SMALL, WIDTH, marker_style, new_figure, note_no_result, save, styled
from bingo.report.table import read_table

_LINES = 54
"""Maximum number of lines in a block; limits the height of a figure to the width of a page."""
_LINE_HEIGHT, _PANEL_WIDTH, _LETTER_WIDTH = 0.135, 1.7, 0.055
"""Inches."""
_COLUMN = 24
"""Width in points of a column of numbers next to a panel."""
_PUBLISHED: dict[str, Any] = {"marker": "D", "markerfacecolor": "none", "markeredgecolor": "0.15", "markersize": 6}
_BARS: dict[str, Any] = {"ecolor": "0.15", "elinewidth": 0.8, "capsize": 2, "capthick": 0.8, "barsabove": True}


@styled
def draw_accuracy(architectures: Mapping[str, str], table: Path, outputs: Sequence[Path]) -> None:
    """Draw a table, with one line per network, grouped by architecture, and one panel per protocol.

    Dots are means over seeds, error bars are standard deviations, and open diamonds are published numbers.

    Args:
        architectures: label of each student's architecture.
        table: CSV file of the table.
        outputs: SVG or PNG files to write.

    Raises:
        BingoError: the table is damaged.
    """
    frame = match_published_protocols(read_table(table))
    panels = table_panels(frame) or [Panel("", "top1")]
    blocks = split_blocks(table_groups(frame, architectures), _LINES) or [[FigureRow("")]]
    lines = [line for block in blocks for line in block]
    styles = method_styles(lines)
    columns = len(panels)
    rows = max(len(block) for block in blocks)
    longest = max((len(line.text) for line in lines), default=0)
    width = max(WIDTH, len(blocks) * (longest * _LETTER_WIDTH + columns * _PANEL_WIDTH))
    figure = new_figure(width, 0.95 + _LINE_HEIGHT * max(rows, 4), gap=0.12)
    grid = figure.subplots(1, len(blocks) * columns, squeeze=False)[0]
    for i, block in enumerate(blocks):
        _write_labels(grid[i * columns], block)
        for axes, panel in zip(grid[i * columns : (i + 1) * columns], panels, strict=True):
            axes.set(ylim=(rows - 0.5, -0.5), xlim=value_range(lines, panel))
            axes.set_title(panel.protocol, pad=12)
            axes.set_xlabel(METRICS[panel.metric])
            axes.tick_params(left=False, labelleft=axes is grid[i * columns])
            axes.spines["left"].set_visible(False)
            _draw_panel(axes, block, panel, styles)
            _write_numbers(axes, block, panel, lines)
    figure.legend(handles=_handles(lines, styles), loc="outside lower center", ncols=int(figure.get_figwidth() / 1.3))
    save(figure, outputs)


def method_styles(lines: Sequence[FigureRow]) -> dict[str, dict[str, Any]]:
    """Return colour and marker of each method, in order of occurrence."""
    methods = dict.fromkeys(line.method for line in lines if line.method)
    return {method: marker_style(number) for number, method in enumerate(methods)}


def value_range(lines: Sequence[FigureRow], panel: Panel) -> tuple[float, float]:
    """Return the axis limits of a panel; they include all dots, error bars and published numbers."""
    values = _plotted_values(lines, panel) or [0.0, 100.0]
    margin = 0.08 * (max(values) - min(values)) or 1.0
    return min(values) - margin, max(values) + margin


def _plotted_values(lines: Sequence[FigureRow], panel: Panel) -> list[float]:
    scores = [line.numbers[panel] for line in lines if panel in line.numbers]
    values = [n.mean + sign * np.nan_to_num(n.std) for n in scores for sign in (-1, 1)] + [n.published for n in scores]
    return [float(value) for value in values if not isnan(value)]


def _draw_panel(axes: Axes, block: Sequence[FigureRow], panel: Panel, styles: Mapping[str, dict[str, Any]]) -> None:
    axes.grid(axis="x", color="0.9", linewidth=0.5)
    axes.set_axisbelow(True)
    axes.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    for row, line in enumerate(block):
        if not line.method:
            continue
        axes.axhline(row, color="0.85", linewidth=0.4, zorder=0.5)
        if panel not in line.numbers:
            continue
        mean, std, published = line.numbers[panel]
        if not isnan(published):
            axes.plot(published, row, linestyle="", **_PUBLISHED)
        if not isnan(mean):
            deviation = None if isnan(std) else std
            axes.errorbar(mean, row, xerr=deviation, zorder=3, **_BARS, **styles[line.method])
    if not _plotted_values(block, panel):
        note_no_result(axes)
        axes.set_xticks([])


def _write_labels(axes: Axes, block: Sequence[FigureRow]) -> None:
    """Write the names of the lines at the left."""
    axes.set_yticks(range(len(block)), [line.text for line in block])
    for tick, line in zip(axes.get_yticklabels(), block, strict=True):
        tick.set_fontweight("normal" if line.method else "bold")


def _write_numbers(axes: Axes, block: Sequence[FigureRow], panel: Panel, lines: Sequence[FigureRow]) -> None:
    """Write the numbers in columns to the right of the panel, clear of dots and error bars."""

    def write(text: str, row: float, column: int, **options: Any) -> None:
        axes.annotate(
            text,
            (1, row),
            (column * _COLUMN, 0),
            xycoords=axes.get_yaxis_transform(),
            textcoords="offset points",
            ha="right",
            va="center_baseline",  # like the labels at the left
            fontsize=SMALL,
            **options,
        )

    scores = [line.numbers[panel] for line in lines if panel in line.numbers]
    names = [name for name in ("mean", "published") if not all(isnan(getattr(n, name)) for n in scores)]
    for column, name in enumerate(names, 1):
        write("publ." if name == "published" else "ours", -1, column, color="0.35")
        for row, line in enumerate(block):
            value = getattr(line.numbers[panel], name) if panel in line.numbers else np.nan
            if not isnan(value):
                write(f"{value:.1f}", row, column, color="0.35" if name == "published" else "black")


def _handles(lines: Sequence[FigureRow], styles: Mapping[str, dict[str, Any]]) -> list[Artist]:
    """Return the legend entries: methods and, if any, standard deviations and published numbers."""
    numbers = [n for line in lines for n in line.numbers.values()]
    measured = {line.method for line in lines if any(not isnan(n.mean) for n in line.numbers.values())}
    handles: list[Artist] = [
        Line2D([], [], linestyle="", label=method, **style) for method, style in styles.items() if method in measured
    ]
    if any(not isnan(n.std) for n in numbers):
        handles.append(Line2D([], [], color="0.15", linewidth=0.8, label="standard deviation over seeds"))
    if any(not isnan(n.published) for n in numbers):
        handles.append(Line2D([], [], linestyle="", label="published", **_PUBLISHED))
    return handles
