"""Tables of results: gathered from result files, beside published numbers, and as a person reads them."""

import io
import math
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import pandas as pd

from bingo.artifacts.files import read_checked
from bingo.artifacts.results import read_result
from bingo.errors import BingoError

Network = tuple[str, str, str]
Measured = tuple[str, str]
"""A model and an evaluation."""
NAMES = ["method", "student", "teacher", "bags", "protocol", "metric"]
COLUMNS = [*NAMES, "mean", "std", "seeds", "published", "source"]
FOOTNOTE = (
    "Accuracy on the validation images, of detectors COCO's average precision, in percent; mean ± sample standard "
    "deviation over seeds. A row without a student is the teacher itself."
)
PUBLISHED_FOOTNOTE = (
    "In percent; ours: mean ± sample standard deviation over seeds, empty where nothing was measured; difference: ours "
    "less published. The CSV names the source of each published number, whose linear probe may have had other settings."
)


@dataclass(frozen=True)
class Published:
    """A number that somebody has published."""

    method: str
    student: str
    """Its architecture, empty for a teacher."""
    teacher: str
    """As a study names it, empty for none."""
    protocol: str
    metric: str
    published: float
    """In percent."""
    source: str

    def network(self) -> Network:
        """Return by what it is matched with a row; a teacher's method is part of its name."""
        return (self.method if self.student else "", self.student, self.teacher)


def gather_results(
    paths: Sequence[Path], models: Collection[str], evaluations: Collection[str], place: str
) -> Mapping[Measured, Mapping[str, list[float]]]:
    """Read result files of the evaluation stage.

    Args:
        paths: one file for each model, evaluation and seed.
        models: teachers and students that may occur.
        evaluations: evaluations that may occur.
        place: what the results are for, for messages.

    Returns:
        By model and evaluation and by metric, the values of all seeds; nothing where there are none.

    Raises:
        BingoError: a file cannot be read, is of another model or evaluation, or holds what another one holds too.
    """
    values: dict[Measured, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    seen: set[tuple[str, str, int]] = set()
    for path in paths:
        result = read_result(path)
        model, protocol, seed = result["model"], result["protocol"], result["seed"]
        if model not in models or protocol not in evaluations:
            raise BingoError(f"{path}: {model} by {protocol} is not in this {place}; leave the file out")
        if (model, protocol, seed) in seen:
            raise BingoError(f"{path}: a second result of {model} by {protocol} with seed {seed}; name each file once")
        seen.add((model, protocol, seed))
        for metric, value in result["metrics"].items():
            values[model, protocol][metric].append(value)
    return values


def read_published(path: Path) -> list[Published]:
    """Read a CSV of published numbers.

    Raises:
        BingoError: the file is missing, no such CSV, or holds two numbers for the same.
    """
    types = {field.name: float if field.type is float else str for field in fields(Published)}
    try:
        frame = pd.read_csv(path, dtype=types, keep_default_na=False)[list(types)]
    except (OSError, ValueError, KeyError) as error:
        raise BingoError(f"{path}: cannot be read as published numbers ({error}); correct it") from error
    numbers = [Published(*row) for row in frame.itertuples(index=False, name=None)]
    seen = set()
    for number in numbers:
        if not math.isfinite(number.published):
            raise BingoError(f"{path}: found {number.published} for a published number; correct it")
        key = (*number.network(), number.protocol, number.metric)
        if key in seen:
            names = (number.method, number.student, number.teacher, number.protocol, number.metric)
            raise BingoError(f"{path}: two numbers for {', '.join(names)}; leave one out")
        seen.add(key)
    return numbers


def read_table(path: Path) -> pd.DataFrame:
    """Read a table's CSV; empty names stay empty text, a missing number is NaN.

    Raises:
        BingoError: it is damaged.
    """
    texts = [*NAMES, "source"]
    try:
        types = {**dict.fromkeys(texts, str), "mean": float, "std": float, "seeds": int, "published": float}
        content = io.BytesIO(read_checked(path))
        frame = pd.read_csv(content, dtype=types, keep_default_na=False, na_values=[""])  # a student may be called null
        return frame.fillna(dict.fromkeys(texts, ""))[COLUMNS]
    except (OSError, ValueError, KeyError) as error:
        raise BingoError(f"{path}: no table ({error}); delete it and run again") from error


def readable_table(frame: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """Return a tidy table as a person reads it, and what to say below it.

    With published numbers: a line a number, with `published`, `ours` and their `difference`. Else: a line a network,
    a column per protocol and metric.
    """
    if frame["published"].notna().any():
        return _beside_published(frame), PUBLISHED_FOOTNOTE
    return _wide(frame), FOOTNOTE


def _beside_published(frame: pd.DataFrame) -> pd.DataFrame:
    difference = frame["mean"] - frame["published"]
    return frame[NAMES].assign(
        published=[_quoted(value) for value in frame["published"]],
        ours=[_cell(mean, std) for mean, std in zip(frame["mean"], frame["std"], strict=True)],
        seeds=[str(seeds) if seeds else "" for seeds in frame["seeds"]],
        difference=[_cell(value, math.nan, "+.2f") for value in difference],
    )


def _wide(frame: pd.DataFrame) -> pd.DataFrame:
    cells = frame.assign(
        column=frame["protocol"] + " " + frame["metric"],
        text=[_cell(mean, std) for mean, std in zip(frame["mean"], frame["std"], strict=True)],
    )
    keys = ["method", "student", "teacher", "bags"]
    wide = cells.pivot(index=keys, columns="column", values="text").fillna("")
    wide = wide.reindex(index=pd.MultiIndex.from_frame(frame[keys].drop_duplicates()), columns=cells["column"].unique())
    seeds = frame.groupby(keys)["seeds"].unique()
    wide["seeds"] = [" or ".join(str(count) for count in sorted(seeds[key]) if count) or "0" for key in wide.index]
    return wide.reset_index().rename_axis(columns=None)


def _quoted(value: float) -> str:
    """Return a published number with all its digits, one decimal at least."""
    return "" if math.isnan(value) else str(round(value, 4))


def _cell(mean: float, std: float, form: str = ".2f") -> str:
    if math.isnan(mean):
        return ""
    return f"{mean:{form}}" if math.isnan(std) else f"{mean:{form}} ± {std:{form}}"
