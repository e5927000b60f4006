"""A table as the lines of a figure: networks in groups, each with its numbers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import pandas as pd

from bingo.report.style import METRICS
from bingo.study.protocols import published_name

TEACHERS = "teachers"
_KEYS = ["method", "student", "teacher", "bags"]


class Panel(NamedTuple):
    """What is measured in one column of a figure."""

    protocol: str
    metric: str


class Scores(NamedTuple):
    """What is known of one network by one protocol, in percent; NaN where it is not."""

    mean: float
    std: float
    published: float


@dataclass(frozen=True)
class FigureRow:
    """The title of a group, or a network and its numbers."""

    text: str
    method: str = ""
    """Empty for a title."""
    numbers: dict[Panel, Scores] = field(default_factory=dict)


def match_published_protocols(frame: pd.DataFrame) -> pd.DataFrame:
    """Put numbers that publications alone have under each of our protocols that they are compared with.

    Publications call every linear probe `linear`; where a table has none of these, they keep their own name.
    """
    protocols = list(dict.fromkeys(frame["protocol"]))
    ours = {
        name: [other for other in protocols if other != name and published_name(other) == name] for name in protocols
    }
    moved = frame.assign(protocol=frame["protocol"].map(lambda name: ours[name] or [name]))
    return moved.explode("protocol", ignore_index=True)


def table_panels(frame: pd.DataFrame) -> list[Panel]:
    """Return the columns of a figure in the order of the table: a headline metric of a protocol each."""
    shown = frame[frame["metric"].isin(list(METRICS))]
    return list(dict.fromkeys(map(Panel, shown["protocol"], shown["metric"])))


def table_groups(frame: pd.DataFrame, architectures: Mapping[str, str]) -> list[list[FigureRow]]:
    """Return the networks of a table, in its order, in groups that begin with their title, teachers before students.

    Args:
        frame: what `bingo.report.table.read_table` returns; (network, protocol, metric) occurs once.
        architectures: of each student, the title of its group; a student without one, of which a publication alone
            tells, is named like its architecture and is that title itself.
    """
    panels = set(table_panels(frame))
    several = frame.loc[frame["student"] != "", "teacher"].replace("", None).nunique() > 1
    groups: dict[str, list[FigureRow]] = {}
    for key, rows in frame.groupby(_KEYS, sort=False):
        method, student, teacher, _ = map(str, key)
        title = architectures.get(student, student) if student else TEACHERS
        columns = map(Panel, rows["protocol"], rows["metric"])
        values = map(Scores, *(rows[name].astype(float) for name in Scores._fields))
        numbers = {panel: value for panel, value in zip(columns, values, strict=True) if panel in panels}
        text = _label(method, student, teacher, several, title)
        groups.setdefault(title, [FigureRow(title)]).append(FigureRow(text, method, numbers))
    return sorted(groups.values(), key=lambda group: group[0].text != TEACHERS)


def split_blocks(groups: Sequence[list[FigureRow]], limit: int) -> list[list[FigureRow]]:
    """Set groups one below the other, in as many blocks as it takes for none to exceed ``limit`` lines.

    No group is divided; one that is longer than the limit is a block of its own.
    """
    blocks: list[list[FigureRow]] = []
    for group in groups:
        if blocks and len(blocks[-1]) + len(group) <= limit:
            blocks[-1] = blocks[-1] + group
        else:
            blocks.append(group)
    return blocks


def _label(method: str, student: str, teacher: str, several: bool, title: str) -> str:
    """Return what stands beside a network: nothing twice, and no name that the group's title already says."""
    if not student:
        return f"{teacher} ({method})"
    name = method if student in (method, title) else f"{student} ({method})"
    told = f"-{teacher}-" in f"-{student}-"
    return f"{name}, from {teacher}" if several and teacher and not told else name
