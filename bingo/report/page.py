"""The report of a study as one HTML page."""

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

# Heading and caption of each kind of figure.
_FIGURES = {
    "accuracy": ("Accuracy", "Diamonds are published numbers, if any."),
    "bag-size": ("Accuracy by bag size", "The students of a line differ only in the size of their bags."),
    "training": ("Training", "Losses are comparable only for the same method, temperature and queue size."),
    "purity": ("Purity of neighbours", "Purity is the fraction of nearest neighbours that have the anchor's class."),
    "similarity": ("Similarity within bags", "Cosine similarity of the teacher's features of anchors and bag members."),
    "map": ("Feature maps", "t-SNE of the same images for each network; distances between groups mean little."),
}
_PAGES = {
    "random": "random anchors",
    "more": "more random anchors",
    "best": "highest purity first, then highest similarity",
    "worst": "lowest purity first, then lowest similarity",
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
    """Write a self-contained HTML page that opens offline.

    Links to files are relative to the page.

    Args:
        study: the study file.
        left_out: parts of the study that the data do not support; may be empty.
        tables: CSV files; their Markdown and LaTeX are in the same folder.
        figures: SVG files, named `<kind>.svg` or `<kind>-<name>.svg`; each has a PNG in the same folder.
        sheets: contact sheets by `<bags>/<page>`.
        bags: HDF5 files of the bags.
        models: weights of teachers and students, for their settings and hardware.
        benchmarks: Snakemake's benchmark files by stage; the page counts missing files.
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
        raise BingoError(f"{unknown[0]}: is not a known kind of figure ({', '.join(_FIGURES)}); rename or remove it")
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
    """Return settings, hardware and software of the job that produced a network."""
    metadata = read_metadata(path)
    provenance = metadata["provenance"]
    # Detected properties of an imported teacher replace its settings, which may be null.
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
