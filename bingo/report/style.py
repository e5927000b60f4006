"""Style and output of figures; the same data give the same bytes.

Sizes are in print: text of 7 pt is 7 pt high on paper if the figure is not scaled.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("agg")
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from bingo.artifacts.files import atomic_write_checked
from bingo.errors import BingoError

WIDTH = 7.0
"""Text width of a page, in inches."""
SMALL = 7.0
"""Smallest font size, in points."""

# Okabe and Ito's palette, which colour-blind readers can distinguish, without yellow, which is too pale on white.
# Markers and dashes distinguish entries in grey print. The list lengths have no common factor, so a combination repeats
# only after 70 entries with markers and 35 with dashes.
_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#000000")
_MARKERS = ("o", "s", "^", "X", "v", "P", "<", "*", ">", "p")
_LINES = ("-", (0, (5, 1.5)), (0, (1, 1)), (0, (6, 1.5, 1, 1.5)), (0, (3, 1, 1, 1, 1, 1)))

METRICS = {"top1": "top-1 accuracy in %", "box_ap": "box AP", "mask_ap": "mask AP"}
"""Labels of the metrics that figures show, by their names in results."""

styled = matplotlib.rc_context(
    {
        "font.size": 8,
        "axes.titlesize": 8,
        "axes.labelsize": 8,
        "xtick.labelsize": SMALL,
        "ytick.labelsize": SMALL,
        "legend.fontsize": SMALL,
        "legend.frameon": False,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.linewidth": 0.6,
        "xtick.major.width": 0.6,
        "ytick.major.width": 0.6,
        "lines.linewidth": 1.2,
        "lines.markersize": 5,
        # Keep text as text, so that it can be searched and read aloud.
        "svg.fonttype": "none",
        "svg.hashsalt": "bingo",
    }
)
"""Decorator for functions that draw and save a figure."""


def new_figure(width: float, height: float, gap: float = 0.04) -> Figure:
    """Return an empty figure with constrained layout; width, height and the gap around each panel are in inches."""
    return Figure(figsize=(width, height), layout=ConstrainedLayoutEngine(w_pad=gap))


def marker_style(number: int) -> dict[str, Any]:
    """Return colour and marker of legend entry ``number``; repeated colours alternate between filled and hollow."""
    cycle, index = divmod(number, len(_COLOURS))
    fill = "white" if cycle % 2 else _COLOURS[index]
    return {"color": _COLOURS[index], "marker": _MARKERS[number % len(_MARKERS)], "markerfacecolor": fill}


def line_style(number: int) -> dict[str, Any]:
    """Return colour and dashes of legend entry ``number``."""
    return {"color": _COLOURS[number % len(_COLOURS)], "linestyle": _LINES[number % len(_LINES)]}


def note_no_result(axes: Axes) -> None:
    """Write "no result yet" in an empty panel."""
    box = {"facecolor": "white", "edgecolor": "none"}
    axes.text(0.5, 0.5, "no result yet", transform=axes.transAxes, ha="center", va="center", color="0.35", bbox=box)


def save(figure: Figure, outputs: Sequence[Path]) -> None:
    """Write a figure in the format of each file's suffix.

    Raises:
        BingoError: a suffix is neither .svg nor .png, or a file cannot be written.
    """
    for output in outputs:
        if output.suffix not in (".svg", ".png"):
            raise BingoError(f"{output}: figures are written as .svg or .png; change the suffix")
        # Dates and versions would make equal figures differ.
        metadata = {"Date": None, "Creator": None} if output.suffix == ".svg" else {"Software": None}
        with atomic_write_checked(output) as temporary:
            figure.savefig(temporary, dpi=200, metadata=metadata)
