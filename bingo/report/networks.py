"""The rows of an accuracy figure: networks in groups, with their numbers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import pandas as pd

from bingo.report.style import METRICS
from bingo.study.protocols import published_name

TEACHERS = "teachers"
_KEYS = ["method", "student", "teacher", "bags"]


class Panel(NamedTuple):
    """Protocol and metric of one column of a figure."""

    protocol: str
    metric: str


class Scores(NamedTuple):
    """Numbers of one network for one protocol, in percent; NaN if unknown."""

    mean: float
    std: float
    published: float


@dataclass(frozen=True)
class FigureRow:
    """Title of a group, or a network with its numbers."""

    text: str
    method: str = ""
    """Empty for a title."""
    numbers: dict[Panel, Scores] = field(default_factory=dict)


def match_published_protocols(frame: pd.DataFrame) -> pd.DataFrame:
    """Rename the protocol of published numbers to each protocol of this project that they are compared with.

    Publications call every linear probe `linear`. The name is kept if the table has no linear probe.
    """
    protocols = list(dict.fromkeys(frame["protocol"]))
    ours = {
        name: [other for other in protocols if other != name and published_name(other) == name] for name in protocols
    }
    moved = frame.assign(protocol=frame["protocol"].map(lambda name: ours[name] or [name]))
    return moved.explode("protocol", ignore_index=True)


def table_panels(frame: pd.DataFrame) -> list[Panel]:
    """Return the columns of a figure in table order, one per protocol and main metric."""
    rows = frame[frame["metric"].isin(list(METRICS))]
    return list(dict.fromkeys(map(Panel, rows["protocol"], rows["metric"])))


def table_groups(frame: pd.DataFrame, architectures: Mapping[str, str]) -> list[list[FigureRow]]:
    """Return the networks of a table in groups, teachers first; each group begins with its title.

    Args:
        frame: output of `bingo.report.table.read_table`; each (network, protocol, metric) occurs once.
        architectures: group title of each student. Published students without a run in this study are not listed;
            their architecture is their name and title.
    """
    panels = set(table_panels(frame))
    has_several_teachers = frame.loc[frame["student"] != "", "teacher"].replace("", None).nunique() > 1
    groups: dict[str, list[FigureRow]] = {}
    for key, rows in frame.groupby(_KEYS, sort=False):
        method, student, teacher, _ = map(str, key)
        title = architectures.get(student, student) if student else TEACHERS
        columns = map(Panel, rows["protocol"], rows["metric"])
        values = map(Scores, *(rows[name].astype(float) for name in Scores._fields))
        numbers = {panel: value for panel, value in zip(columns, values, strict=True) if panel in panels}
        text = _label(method, student, teacher, title, has_several_teachers)
        groups.setdefault(title, [FigureRow(title)]).append(FigureRow(text, method, numbers))
    return sorted(groups.values(), key=lambda group: group[0].text != TEACHERS)


def split_blocks(groups: Sequence[list[FigureRow]], limit: int) -> list[list[FigureRow]]:
    """Distribute groups over blocks of at most ``limit`` lines.

    Groups are not split; a group longer than ``limit`` becomes a separate block.
    """
    blocks: list[list[FigureRow]] = []
    for group in groups:
        if blocks and len(blocks[-1]) + len(group) <= limit:
            blocks[-1] = blocks[-1] + group
        else:
            blocks.append(group)
    return blocks


def _label(method: str, student: str, teacher: str, title: str, has_several_teachers: bool) -> str:
    """Return the label of a network without repetitions or names that the group's title contains."""
    if not student:
        return f"{teacher} ({method})"
    name = method if student in (method, title) else f"{student} ({method})"
    is_in_name = f"-{teacher}-" in f"-{student}-"
    return f"{name}, from {teacher}" if has_several_teachers and teacher and not is_in_name else name
