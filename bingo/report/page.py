"""One page that shows what a study found."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import yaml

from bingo.artifacts.files import write_text
from bingo.artifacts.tensors import read_metadata
from bingo.bags.bags import read_bags
from bingo.errors import BingoError, nearest
from bingo.report.costs import stage_costs
from bingo.report.pictures import embed_picture, embed_sheet
from bingo.report.table import read_table, readable_table
from bingo.study.schema import Study

# Of each kind of figure: its heading, and what to know when looking at it.
_FIGURES = {
    "accuracy": ("Accuracy", "Diamonds are published numbers, where there are any."),
    "bag-size": ("Accuracy by bag size", "Students that differ in nothing but the size of their bags."),
    "training": ("Training", "Losses compare only where method, temperature and queue are the same."),
    "purity": ("Neighbours in the teacher's space", "Purity is the share of neighbours that have the anchor's class."),
    "similarity": ("Similarities in bags", "Cosine of the teacher's features of an anchor and the members of its bag."),
    "map": ("Maps of features", "t-SNE of the same images in each network; distances between groups mean little."),
}
_PAGES = {
    "random": "drawn at random",
    "more": "more, drawn at random",
    "best": "those of one class first, then the most alike",
    "worst": "those of other classes first, then the least alike",
}


def write_report(
    study: Study,
    left_out: str,
    tables: Sequence[Path],
    figures: Sequence[Path],
    sheets: Mapping[str, Path],
    bags: Sequence[Path],
    models: Sequence[Path],
    benchmarks: Mapping[str, Sequence[Path]],
    output: Path,
) -> None:
    """Write one HTML page that holds everything it shows, so that it opens offline and travels alone.

    Links to the files themselves are relative to the page.

    Args:
        study: the study file.
        left_out: what the data did not allow, empty if nothing.
        tables: CSV files; their Markdown and LaTeX lie beside them.
        figures: SVG files, named `<kind>.svg` or `<kind>-<of what>.svg`; each has a PNG beside it.
        sheets: contact sheets by `<bags>/<page>`.
        bags: HDF5 files of the bags.
        models: teachers and students, for what was run.
        benchmarks: of each stage, what Snakemake noted of its jobs; files that are not there are said to be missing.
        output: HTML file to write.

    Raises:
        BingoError: an input is damaged.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("bingo.report", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["link"] = lambda path: os.path.relpath(path, output.parent)
    for path in tables:
        if path.stem not in study.tables:
            raise BingoError(f"{path}: the study has no table {path.stem}{nearest(path.stem, study.tables)}")
    runs = [_run(path) for path in models]
    page = environment.get_template("report.html").render(
        study=study,
        left_out=left_out,
        tables=[_table(path) for path in tables],
        figures=_figures(figures),
        bags=[_bag(path, sheets) for path in bags],
        runs=runs,
        costs=stage_costs(benchmarks),
        hardware=_distinct(run["hardware"] for run in runs),
        packages=_distinct(f"{name} {version}" for run in runs for name, version in run["packages"].items()),
        config=yaml.safe_dump(study.model_dump(mode="json", exclude_defaults=True), sort_keys=False, width=110),
    )
    write_text(output, page)


def _table(path: Path) -> dict[str, Any]:
    readable, footnote = readable_table(read_table(path))
    return {
        "name": path.stem,
        "html": readable.to_html(index=False, border=0),
        "footnote": footnote,
        "files": [path, path.with_suffix(".md"), path.with_suffix(".tex")],
    }


def _figures(paths: Sequence[Path]) -> list[dict[str, Any]]:
    """Return the figures of each kind, in the order of `_FIGURES`."""
    unknown = [path for path in paths if _kind(path) is None]
    if unknown:
        raise BingoError(f"{unknown[0]}: no figure of a known kind ({', '.join(_FIGURES)}); rename or leave it out")
    return [
        {
            "kind": kind,
            "heading": heading,
            "note": note,
            "figures": [
                {"name": path.stem, "picture": embed_picture(path), "files": [path, path.with_suffix(".png")]}
                for path in paths
                if _kind(path) == kind
            ],
        }
        for kind, (heading, note) in _FIGURES.items()
        if any(_kind(path) == kind for path in paths)
    ]


def _kind(path: Path) -> str | None:
    return next((kind for kind in _FIGURES if path.stem == kind or path.stem.startswith(f"{kind}-")), None)


def _bag(path: Path, sheets: Mapping[str, Path]) -> dict[str, Any]:
    pages = {page: sheets[key] for page in _PAGES if (key := f"{path.stem}/{page}") in sheets}
    return {
        "name": path.stem,
        "file": path,
        "facts": read_bags(path).attributes,
        "pages": [{"title": _PAGES[page], "picture": embed_sheet(sheet)} for page, sheet in pages.items()],
    }


def _run(path: Path) -> dict[str, Any]:
    """Say what made a network."""
    metadata = read_metadata(path)
    provenance = metadata["provenance"]
    # What an imported teacher turned out to be, instead of what its settings leave open.
    facts = {name: provenance[name] for name in ("file", "format", "part") if name in provenance}
    machine = [provenance[name] for name in ("hardware", "device", "precision") if name in provenance]
    return {
        "path": path,
        "stage": provenance["stage"],
        "method": metadata["method"],
        "digest": metadata["digest"],
        "packages": provenance["packages"],
        "hardware": ", ".join(machine),
        "settings": json.dumps({**provenance["settings"], **facts}, indent=2),
    }


def _distinct(values: Any) -> list[str]:
    return [value for value in dict.fromkeys(values) if value]
