"""Copy tables and figures of the Fashion-MNIST study to docs/fashion-mnist/, and insert tables into documents.

    python workflow/scripts/make_study_page.py

Reads results/fashion-mnist and results/ablations. In docs/results.md and README.md, it replaces the text
between `<!-- table: NAME -->` and `<!-- end -->`.
"""

import os
import re
import shutil
import statistics
from pathlib import Path

import pandas as pd
import yaml

from bingo.artifacts.results import read_result
from bingo.report.table import read_table, readable_table
from bingo.study.plan import Plan
from bingo.study.schema import parse_study

ROOT = Path(__file__).parents[2]
PAGE, README = ROOT / "docs/results.md", ROOT / "README.md"
FOLDER = ROOT / "docs/fashion-mnist"
STUDIES = ["fashion-mnist", "ablations"]
FIGURES = ["fashion-mnist/accuracy-methods", "ablations/bag-size"]
_REFERENCE = "bingo"
"""The student that the others are compared with."""


def main() -> None:
    """Copy tables and figures, collect the results of each seed, and update the documents."""
    os.chdir(ROOT)
    FOLDER.mkdir(exist_ok=True)
    seeds = []
    for study in STUDIES:
        file = ROOT / "config" / f"{study}.yaml"
        plan = Plan(parse_study(yaml.safe_load(file.read_text(encoding="utf-8")), file.name))
        for table in (Path(plan.path(f"tables/{name}.csv")) for name in plan.tables):
            if table.exists():  # `make study` does not run all ablations
                shutil.copy(table, FOLDER)
        for result in (read_result(path) for path in map(Path, plan.all_results()) if path.exists()):
            network = {"study": study, **{key: result[key] for key in ("model", "seed", "protocol")}}
            seeds += [{**network, "metric": metric, "value": value} for metric, value in result["metrics"].items()]
    for name in FIGURES:
        study, figure = name.split("/")
        shutil.copy(f"results/{study}/figures/{figure}.svg", FOLDER)
    pd.DataFrame(seeds).to_csv(FOLDER / "seeds.csv", index=False, float_format="%.4f")
    for page in (PAGE, README):
        page.write_text(filled(page.read_text(encoding="utf-8")), encoding="utf-8")


def filled(page: str) -> str:
    """Return the page with its tables replaced by those in docs/fashion-mnist/."""

    def table(match: re.Match[str]) -> str:
        name = match["name"]
        text = differences() if name == "differences" else _table(FOLDER / f"{name}.csv")
        return f"<!-- table: {name} -->\n\n{text}\n\n<!-- end -->"

    return re.sub(r"<!-- table: (?P<name>[\w-]+) -->.*?<!-- end -->", table, page, flags=re.DOTALL)


def differences() -> str:
    """Return the table of top-1 differences between BINGO and each other student: mean ± standard deviation over seeds.

    Differences are between students with the same seed, which share the order and the views of the images.
    """
    frame = pd.read_csv(FOLDER / "seeds.csv")
    frame = frame[(frame["study"] == "fashion-mnist") & (frame["metric"] == "top1")]
    values = frame.pivot(index=["protocol", "model"], columns="seed", values="value")
    rows = []
    for model in dict.fromkeys(frame["model"]):
        cells = {}
        for protocol in dict.fromkeys(frame["protocol"]):
            pairs = (values.loc[protocol, _REFERENCE] - values.loc[protocol, model]).dropna().tolist()
            if model != _REFERENCE and len(pairs) > 1:
                cells[protocol] = f"{statistics.fmean(pairs):+.2f} ± {statistics.stdev(pairs):.2f}"
        if cells:
            rows.append({f"{_REFERENCE} less": model, **cells})
    return str(pd.DataFrame(rows).to_markdown(index=False, disable_numparse=True))


def _table(path: Path) -> str:
    frame = read_table(path)
    readable, _ = readable_table(frame[frame["metric"] == "top1"])
    return str(readable.to_markdown(index=False, disable_numparse=True))


if __name__ == "__main__":
    main()
