"""Figure of accuracy against bag size."""

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import NullLocator

from bingo.report.networks import Panel
from bingo.report.style import METRICS, WIDTH, line_style, marker_style, new_figure, note_no_result, save, styled
from bingo.report.table import Measured, gather_results
from bingo.study.protocols import headline_metric
from bingo.study.report_contents import BagSizeSeries

_COLUMNS = 3
_ROW_HEIGHT = 2.2
"""Inches."""

Values = Mapping[Measured, Mapping[str, list[float]]]
"""Values of all seeds by (model, evaluation) and metric."""


class Point(NamedTuple):
    """Accuracy for one bag size; NaN if unknown."""

    size: int
    mean: float
    std: float


@styled
def draw_bag_size(
    series: Sequence[BagSizeSeries], evaluations: Sequence[str], results: Sequence[Path], outputs: Sequence[Path]
) -> None:
    """Draw accuracy against bag size, with one panel per protocol and one line per series of students.

    Points are means over seeds, error bars are standard deviations. Lines have gaps at missing results.

    Args:
        series: series of students, one per line.
        evaluations: evaluations, one or more panels each.
        results: result files of the evaluation stage.
        outputs: SVG or PNG files to write.

    Raises:
        BingoError: a result cannot be read, does not belong to the figure, or occurs twice.
    """
    students = {student for entry in series for student in entry.sizes}
    measured = gather_results(results, students, evaluations, "figure")
    panels = bag_size_panels(evaluations, measured)
    sizes = sorted({size for entry in series for size in entry.sizes.values()})
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
        _draw_panel(axes, series, panel, measured)
    for axes in grid[len(panels) :]:
        axes.remove()
    handles, labels = grid[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=max(columns, 1), handlelength=4)
    save(figure, outputs)


def bag_size_panels(evaluations: Sequence[str], measured: Values) -> list[Panel]:
    """Return a panel per protocol and measured metric; without results, one for the main metric."""
    panels = []
    for protocol in evaluations:
        metrics = [
            metric
            for metric in METRICS
            if any(metric in values for (_, name), values in measured.items() if name == protocol)
        ]
        panels += [Panel(protocol, metric) for metric in metrics or [headline_metric(protocol)]]
    return panels


def series_points(series: BagSizeSeries, panel: Panel, measured: Values) -> list[Point]:
    """Return the points of a line in order of bag size: mean and sample standard deviation over seeds."""
    points = []
    for student, size in sorted(series.sizes.items(), key=lambda item: item[1]):
        values = measured.get((student, panel.protocol), {}).get(panel.metric, [])
        mean = statistics.fmean(values) if values else np.nan
        points.append(Point(size, mean, statistics.stdev(values) if len(values) > 1 else np.nan))
    return points


def _draw_panel(axes: Axes, series: Sequence[BagSizeSeries], panel: Panel, measured: Values) -> None:
    axes.grid(axis="y", color="0.9", linewidth=0.5)
    lines = [series_points(entry, panel, measured) for entry in series]
    for number, (entry, points) in enumerate(zip(series, lines, strict=True)):
        size, mean, std = zip(*points, strict=True)
        style = line_style(number) | marker_style(number)
        axes.errorbar(size, mean, yerr=std, capsize=2, elinewidth=0.8, label=entry.label, **style)
    if all(np.isnan(point.mean) for points in lines for point in points):
        note_no_result(axes)
        axes.set_yticks([])
