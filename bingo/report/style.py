"""How figures look, and how they are written: equal data give equal bytes.

Sizes are those in print: a text of 7 pt is 7 pt high on paper if the figure is not scaled.
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
"""Inches between the margins of a page."""
SMALL = 7.0
"""Points; no text is smaller."""

# Okabe and Ito's palette, distinct to colour-blind readers, without its yellow, too pale for white paper. Shapes and
# dashes tell apart what is printed in grey; their numbers have no factor in common with that of the colours, so that it
# takes 70 and 35 entries until a pair occurs again.
_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#000000")
_MARKERS = ("o", "s", "^", "X", "v", "P", "<", "*", ">", "p")
_LINES = ("-", (0, (5, 1.5)), (0, (1, 1)), (0, (6, 1.5, 1, 1.5)), (0, (3, 1, 1, 1, 1, 1)))

METRICS = {"top1": "top-1 accuracy in %", "box_ap": "box AP", "mask_ap": "mask AP"}
"""The metrics that figures show, by their names in results, and what they are called in print."""

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
        # In the files, text stays text, to be searched and read out.
        "svg.fonttype": "none",
        "svg.hashsalt": "bingo",
    }
)
"""Decorator of a function that draws and saves."""


def new_figure(width: float, height: float, gap: float = 0.04) -> Figure:
    """Return an empty figure of so many inches, whose parts find their own places, `gap` at either side of a panel."""
    return Figure(figsize=(width, height), layout=ConstrainedLayoutEngine(w_pad=gap))


def marker_style(number: int) -> dict[str, Any]:
    """Return colour and marker of the entry of that number in a legend; hollow where a colour comes round again."""
    turn, place = divmod(number, len(_COLOURS))
    fill = "white" if turn % 2 else _COLOURS[place]
    return {"color": _COLOURS[place], "marker": _MARKERS[number % len(_MARKERS)], "markerfacecolor": fill}


def line_style(number: int) -> dict[str, Any]:
    """Return colour and dashes of the entry of that number in a legend."""
    return {"color": _COLOURS[number % len(_COLOURS)], "linestyle": _LINES[number % len(_LINES)]}


def note_no_result(axes: Axes) -> None:
    """Say in an empty panel why it is empty."""
    box = {"facecolor": "white", "edgecolor": "none"}
    axes.text(0.5, 0.5, "no result yet", transform=axes.transAxes, ha="center", va="center", color="0.35", bbox=box)


def save(figure: Figure, outputs: Sequence[Path]) -> None:
    """Write a figure; the suffix of each file says as what.

    Raises:
        BingoError: a suffix is neither .svg nor .png, or a file cannot be written.
    """
    for output in outputs:
        if output.suffix not in (".svg", ".png"):
            raise BingoError(f"{output}: figures are written as .svg or .png; choose one of these")
        # Neither a date nor a version, which would make equal figures differ.
        metadata = {"Date": None, "Creator": None} if output.suffix == ".svg" else {"Software": None}
        with atomic_write_checked(output) as temporary:
            figure.savefig(temporary, dpi=200, metadata=metadata)
