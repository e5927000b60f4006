"""Commands that people type, beside those of stages (`bingo.cli`). Their modules are imported inside them."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from bingo.command import start
from bingo.errors import BingoError


def new(
    study: Annotated[str, typer.Argument(help="Name of the study: small letters, digits, - and _.")],
    data: Annotated[Path, typer.Option(help="Folder of images: class folders, flat, or with train/ and val/ in it.")],
    output: Annotated[Path | None, typer.Option(help="Study file to write; STUDY.yaml if not given.")] = None,
    scale: Annotated[
        Literal["trial", "full"] | None,
        typer.Option(help="Minutes on two cores, or the paper's networks and schedule; full where there is a GPU."),
    ] = None,
    teacher: Annotated[
        Path | None, typer.Option(help="Checkpoint to distil (bingo inspect); else a teacher is trained.")
    ] = None,
) -> None:
    """Write a study file that fits a folder of images."""
    start(None)
    from bingo.new import write_study

    for line in write_study(study, data, output or Path(f"{study}.yaml"), scale, teacher):
        print(line)


def summary(results: Annotated[Path, typer.Argument(help="A study's folder, results/demo say.")]) -> None:
    """Print a study's tables and where everything is."""
    start(None)
    if not results.is_dir():
        raise BingoError(f"{results}: no such folder; a study's results are in results/<study>")
    for path in sorted((results / "tables").glob("*.md")):
        print(path.read_text(encoding="utf-8"))
    places = ["report.html", "tables", "figures", "bags", "students", "teachers", "evaluation"]
    for place in places:
        if (results / place).exists():
            print(results / place)


def doctor(
    study: Annotated[Path | None, typer.Argument(help="Study file to check against this machine too.")] = None,
) -> None:
    """Say what this machine has of what a study needs, and what to do about the rest."""
    start(None)
    from bingo.doctor import diagnose, examine

    text, sound = diagnose(examine(study))
    print(text)
    if not sound:
        raise BingoError("a study would fail here; the lines that begin with fail say why, and what helps")
