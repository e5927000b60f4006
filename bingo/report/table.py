"""Tables of results: collected from result files, compared with published numbers, and formatted for reading."""

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
    "Accuracy on the validation images in percent (for detectors, COCO average precision): mean ± sample standard "
    "deviation over seeds. Rows without a student are teachers."
)
PUBLISHED_FOOTNOTE = (
    "In percent. ours: mean ± sample standard deviation over seeds, empty if not measured. difference: ours minus "
    "published. The CSV names the source of each published number; its linear probe may use other settings."
)


@dataclass(frozen=True)
class Published:
    """A published number."""

    method: str
    student: str
    """Architecture of the student; empty for a teacher."""
    teacher: str
    """Name of the teacher in the study; empty for none."""
    protocol: str
    metric: str
    published: float
    """In percent."""
    source: str

    def network(self) -> Network:
        """Return the key that matches a table row; for teachers, the name already implies the method."""
        return (self.method if self.student else "", self.student, self.teacher)


def gather_results(
    paths: Sequence[Path], models: Collection[str], evaluations: Collection[str], place: str
) -> Mapping[Measured, Mapping[str, list[float]]]:
    """Read result files of the evaluation stage.

    Args:
        paths: one file for each model, evaluation and seed.
        models: teachers and students that may occur.
        evaluations: evaluations that may occur.
        place: `table` or `figure`, for messages.

    Returns:
        Values of all seeds by (model, evaluation) and metric.

    Raises:
        BingoError: a file cannot be read, is of another model or evaluation, or repeats the result of another file.
    """
    values: dict[Measured, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    seen: set[tuple[str, str, int]] = set()
    for path in paths:
        result = read_result(path)
        model, protocol, seed = result["model"], result["protocol"], result["seed"]
        if model not in models or protocol not in evaluations:
            raise BingoError(f"{path}: {model} by {protocol} is not in this {place}; remove the file")
        if (model, protocol, seed) in seen:
            raise BingoError(f"{path}: a second result of {model} by {protocol} with seed {seed}; remove one file")
        seen.add((model, protocol, seed))
        for metric, value in result["metrics"].items():
            values[model, protocol][metric].append(value)
    return values


def read_published(path: Path) -> list[Published]:
    """Read a CSV of published numbers.

    Raises:
        BingoError: the file is missing or not such a CSV, or has two numbers for the same network and metric.
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
            raise BingoError(f"{path}: a published number is {number.published}; correct it")
        key = (*number.network(), number.protocol, number.metric)
        if key in seen:
            names = (number.method, number.student, number.teacher, number.protocol, number.metric)
            raise BingoError(f"{path}: two numbers for {', '.join(names)}; remove one")
        seen.add(key)
    return numbers


def read_table(path: Path) -> pd.DataFrame:
    """Read the CSV of a table; empty names are empty strings, missing numbers are NaN.

    Raises:
        BingoError: the file is damaged.
    """
    texts = [*NAMES, "source"]
    try:
        types = {**dict.fromkeys(texts, str), "mean": float, "std": float, "seeds": int, "published": float}
        content = io.BytesIO(read_checked(path))
        frame = pd.read_csv(content, dtype=types, keep_default_na=False, na_values=[""])  # a student may be called null
        return frame.fillna(dict.fromkeys(texts, ""))[COLUMNS]
    except (OSError, ValueError, KeyError) as error:
        raise BingoError(f"{path}: is not a table ({error}); delete it and run again") from error


def readable_table(frame: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """Return a tidy table in readable form, and its footnote.

    With published numbers, there is one row per number, with `published`, `ours` and `difference`. Otherwise there is
    one row per network, with one column per protocol and metric.
    """
    if frame["published"].notna().any():
        return _with_published(frame), PUBLISHED_FOOTNOTE
    return _wide(frame), FOOTNOTE


def _with_published(frame: pd.DataFrame) -> pd.DataFrame:
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
    """Return a published number with all its digits and at least one decimal."""
    return "" if math.isnan(value) else str(round(value, 4))


def _cell(mean: float, std: float, form: str = ".2f") -> str:
    if math.isnan(mean):
        return ""
    return f"{mean:{form}}" if math.isnan(std) else f"{mean:{form}} ± {std:{form}}"
