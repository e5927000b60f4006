"""Accuracy against the size of bags."""

import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import NullLocator

from bingo.errors import BingoError
from bingo.evaluation.protocols import headline_metric
from bingo.figures.networks import Panel
from bingo.figures.style import METRICS, WIDTH, line_look, marker_look, new_figure, note_no_result, save, styled
from bingo.jobs import BagSizeFigureJob, BagSizeSeries
from bingo.tables.stage import read_result

_COLUMNS = 3
_ROW_HEIGHT = 2.2
"""Inches."""

Measured = Mapping[tuple[str, str, str], list[float]]
"""Of (model, protocol, metric), the value for each seed."""


class Point(NamedTuple):
    """Accuracy with bags of one size, NaN where it is not known."""

    size: int
    mean: float
    std: float


@styled
def draw_bag_size(job: BagSizeFigureJob, results: Sequence[Path], outputs: Sequence[Path]) -> None:
    """Draw accuracy against bag size: a panel per protocol, a line per series of students.

    Points are means over seeds and their bars standard deviations. Where a result is missing, the line has a gap.

    Raises:
        BingoError: a result cannot be read, is none of this figure, or was given twice.
    """
    measured = read_results(job, results)
    panels = bag_size_panels(job, measured)
    sizes = sorted({size for series in job.series for size in series.sizes.values()})
    columns = min(len(panels), _COLUMNS)
    rows = -(-len(panels) // _COLUMNS)
    figure = new_figure(max(columns / _COLUMNS * WIDTH, WIDTH / 2), 0.3 + rows * _ROW_HEIGHT)
    grid = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axes, panel in zip(grid, panels, strict=False):
        axes.set_title(panel.protocol)
        axes.set(xlabel="neighbours per bag", ylabel=METRICS[panel.metric], xscale="log")
        axes.set_xlim(sizes[0] / 1.2, sizes[-1] * 1.2)
        axes.set_xticks(sizes, [str(size) for size in sizes])
        axes.xaxis.set_minor_locator(NullLocator())
        _draw_panel(axes, job.series, panel, measured)
    for axes in grid[len(panels) :]:
        axes.remove()
    handles, labels = grid[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=max(columns, 1), handlelength=4)
    save(figure, outputs)


def read_results(job: BagSizeFigureJob, results: Sequence[Path]) -> Measured:
    """Read result files of the evaluation stage.

    Raises:
        BingoError: a file cannot be read, is none of this figure, or holds a result that another one holds too.
    """
    students = {student for series in job.series for student in series.sizes}
    measured: dict[tuple[str, str, str], list[float]] = defaultdict(list)
    seen: set[tuple[str, str, int]] = set()
    for path in results:
        result = read_result(path)
        model, protocol, seed = result["model"], result["protocol"], result["seed"]
        if model not in students or protocol not in job.evaluations:
            raise BingoError(f"{path}: {model} by {protocol} is not in this figure; leave the file out")
        if (model, protocol, seed) in seen:
            raise BingoError(f"{path}: a second result of {model} by {protocol} with seed {seed}; name each file once")
        seen.add((model, protocol, seed))
        for metric, value in result["metrics"].items():
            measured[model, protocol, metric].append(value)
    return measured


def bag_size_panels(job: BagSizeFigureJob, measured: Measured) -> list[Panel]:
    """Return the panels: the headline metrics of each protocol, the first where there is no result yet."""
    panels = []
    for protocol in job.evaluations:
        known = [metric for metric in METRICS if any(key[1:] == (protocol, metric) for key in measured)]
        panels += [Panel(protocol, metric) for metric in known or [headline_metric(protocol)]]
    return panels


def series_points(series: BagSizeSeries, panel: Panel, measured: Measured) -> list[Point]:
    """Return the points of a line by rising bag size: mean and sample standard deviation over seeds."""
    points = []
    for student, size in sorted(series.sizes.items(), key=lambda item: item[1]):
        values = measured.get((student, *panel), [])
        mean = statistics.fmean(values) if values else np.nan
        points.append(Point(size, mean, statistics.stdev(values) if len(values) > 1 else np.nan))
    return points


def _draw_panel(axes: Axes, series: Sequence[BagSizeSeries], panel: Panel, measured: Measured) -> None:
    axes.grid(axis="y", color="0.9", linewidth=0.5)
    lines = [series_points(entry, panel, measured) for entry in series]
    for number, (entry, points) in enumerate(zip(series, lines, strict=True)):
        size, mean, std = zip(*points, strict=True)
        look = line_look(number) | marker_look(number)
        axes.errorbar(size, mean, yerr=std, capsize=2, elinewidth=0.8, label=entry.label, **look)
    if all(np.isnan(point.mean) for points in lines for point in points):
        note_no_result(axes)
        axes.set_yticks([])
