"""Entry points of the tables stage: numbers first, then their Markdown and LaTeX."""

import json
import math
import statistics
from collections import defaultdict
from pathlib import Path
from typing import Any

import pandas as pd

from bingo.artifacts import atomic, write_text
from bingo.errors import BingoError
from bingo.jobs import TableJob, TextJob

NAMES = ["method", "student", "teacher", "bags", "protocol", "metric"]
FOOTNOTE = (
    "Accuracy in percent on the validation images; mean ± sample standard deviation over seeds. "
    "A row without a student is the teacher itself."
)
COLUMNS = [*NAMES, "mean", "std", "seeds", "published", "source"]
# pandas escapes cells, but not the caption.
_LATEX = str.maketrans(
    {character: rf"\{character}" for character in "&%$#_{}"}
    | {"~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "\\": r"\textbackslash{}"}
)


def make_table(job: TableJob, result_paths: list[Path], output: Path) -> None:
    """Gather result files into a tidy CSV, one row a number.

    `mean` and `std` (of the sample; empty for one seed) are in percent over `seeds` result files. A number that no
    file holds is an empty cell. `published` and `source` stay empty for studies that have no published counterpart.

    Raises:
        BingoError: a result file cannot be read, or belongs to no row of the table.
    """
    values: dict[tuple[str, str], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    seen: set[tuple[str, str, int]] = set()
    models = {row.model for row in job.rows}
    for path in result_paths:
        result = read_result(path)
        key = (result["model"], result["protocol"], result["seed"])
        if key[0] not in models or key[1] not in job.evaluations:
            raise BingoError(f"{path}: {key[0]} by {key[1]} is not in this table; leave the file out")
        if key in seen:
            raise BingoError(f"{path}: a second result of {key[0]} by {key[1]} with seed {key[2]}; name each file once")
        seen.add(key)
        for metric, value in result["metrics"].items():
            values[result["model"], result["protocol"]][metric].append(value)
    rows = []
    for row in job.rows:
        for protocol in job.evaluations:
            for metric, found in (values[row.model, protocol] or {"top1": []}).items():
                rows.append(
                    {
                        **row.model_dump(exclude={"model"}),
                        "protocol": protocol,
                        "metric": metric,
                        "mean": statistics.fmean(found) if found else None,
                        "std": statistics.stdev(found) if len(found) > 1 else None,
                        "seeds": len(found),
                    }
                )
    frame = pd.DataFrame(rows, columns=COLUMNS)
    with atomic(output) as temporary:
        frame.to_csv(temporary, index=False, float_format="%.4f")


def make_text(job: TextJob, table: Path, markdown: Path, latex: Path) -> None:
    """Render a table's CSV as Markdown and LaTeX: one line a network, one column a protocol."""
    wide = wide_table(read_table(table))
    lines = [
        f"# {job.title}",
        "",
        wide.to_markdown(index=False, disable_numparse=True),
        "",
        FOOTNOTE,
    ]
    write_text(markdown, "\n".join(lines) + "\n")
    write_text(latex, wide.to_latex(index=False, caption=job.title.translate(_LATEX), escape=True, position="t"))


def read_result(path: Path) -> dict[str, Any]:
    """Read a result file of the evaluation stage.

    Raises:
        BingoError: it is missing or damaged.
    """
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
        named = isinstance(result["model"], str) and isinstance(result["protocol"], str)
        named = named and isinstance(result["seed"], int)
        if not named or not all(isinstance(value, int | float) for value in result["metrics"].values()):
            raise ValueError("its names are no text, or its seed or metrics no numbers")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise BingoError(f"{path}: missing or no result file ({error}); delete it and run again") from error
    return dict(result)


def read_table(path: Path) -> pd.DataFrame:
    """Read a table's CSV; empty names stay empty text, a missing number is NaN.

    Raises:
        BingoError: it is damaged.
    """
    try:
        types = {**dict.fromkeys(NAMES, str), "mean": float, "std": float, "seeds": int}
        frame = pd.read_csv(path, dtype=types, keep_default_na=False, na_values=[""])  # a student may be called null
        return frame.fillna(dict.fromkeys(NAMES, ""))[COLUMNS]
    except (OSError, ValueError, KeyError) as error:
        raise BingoError(f"{path}: missing or no table ({error}); delete it and run again") from error


def wide_table(frame: pd.DataFrame) -> pd.DataFrame:
    """Return a tidy table as a person reads it: a line a network, `mean ± std` per protocol and metric."""
    cells = frame.assign(
        column=frame["protocol"] + " " + frame["metric"],
        text=[_cell(mean, std) for mean, std in zip(frame["mean"], frame["std"], strict=True)],
    )
    keys = ["method", "student", "teacher", "bags"]
    wide = cells.pivot(index=keys, columns="column", values="text").fillna("")
    wide = wide.reindex(index=pd.MultiIndex.from_frame(frame[keys].drop_duplicates()), columns=cells["column"].unique())
    seeds = frame.groupby(keys)["seeds"].max()
    wide["seeds"] = [str(seeds[key]) for key in wide.index]
    return wide.reset_index().rename_axis(columns=None)


def _cell(mean: float, std: float) -> str:
    if math.isnan(mean):
        return ""
    return f"{mean:.2f}" if math.isnan(std) else f"{mean:.2f} ± {std:.2f}"
