"""Entry point of the report stage."""

import base64
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2

from bingo.artifacts import write_text
from bingo.bags.bags import read_bags
from bingo.errors import BingoError
from bingo.jobs import ReportJob
from bingo.tables.stage import FOOTNOTE, read_table, wide_table
from bingo.tensors import read_metadata

_MIME = {".svg": "image/svg+xml", ".png": "image/png"}


def write_report(
    job: ReportJob,
    tables: Sequence[Path],
    figures: Sequence[Path],
    sheets: Sequence[Path],
    bags: Sequence[Path],
    models: Sequence[Path],
    output: Path,
) -> None:
    """Write one HTML page that holds everything it shows, so that it opens offline and travels alone.

    Args:
        job: the study's name and what was left out of it.
        tables: CSV files.
        figures: SVG or PNG files.
        sheets: contact sheets, PNG.
        bags: the bags that ``sheets`` show, in the same order.
        models: teachers and students, for what was run.
        output: HTML file to write.

    Raises:
        BingoError: an input is damaged.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("bingo.report", "."), autoescape=True, undefined=jinja2.StrictUndefined
    )
    page = environment.get_template("report.html").render(
        study=job.study,
        left_out=job.left_out,
        footnote=FOOTNOTE,
        tables=[(path.stem, wide_table(read_table(path)).to_html(index=False, border=0)) for path in tables],
        figures=[(path.stem, _embed(path)) for path in figures],
        sheets=[
            (sheet.stem, _embed(sheet), read_bags(bag).attributes) for sheet, bag in zip(sheets, bags, strict=True)
        ],
        runs=[_run(path) for path in models],
    )
    write_text(output, page)


def _embed(path: Path) -> str:
    """Return a picture as a data URL.

    Raises:
        BingoError: it is missing, or no SVG or PNG.
    """
    if path.suffix not in _MIME:
        raise BingoError(f"{path}: no {' or '.join(_MIME)}, which a report can show")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise BingoError(f"{path}: cannot be read ({error.strerror})") from error
    return f"data:{_MIME[path.suffix]};base64,{base64.b64encode(content).decode()}"


def _run(path: Path) -> dict[str, Any]:
    """Say what made a network."""
    metadata = read_metadata(path)
    provenance = metadata["provenance"]
    # What an imported teacher turned out to be, instead of what its settings leave open.
    facts = {name: provenance[name] for name in ("file", "format", "part") if name in provenance}
    return {
        "path": str(path),
        "stage": provenance["stage"],
        "method": metadata["method"],
        "digest": metadata["digest"],
        "packages": provenance["packages"],
        "settings": json.dumps({**provenance["settings"], **facts}, indent=2),
    }
