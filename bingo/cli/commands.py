"""Commands that people type, beside the stages (`bingo.cli.stage`). Their modules are imported inside them."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from bingo.cli.logs import Log, start
from bingo.errors import BingoError
from bingo.study.sections import ExportFormat


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
    from bingo.cli.new import write_study

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


def inspect(checkpoint: Annotated[Path, typer.Argument(help="File of weights.")]) -> None:
    """Say what a file of weights is, and whether it can be a teacher."""
    start(None)
    from bingo.importers.inspect import describe

    print(describe(checkpoint))


def export(
    model: Annotated[Path, typer.Argument(help="A student's backbone, or a teacher.")],
    output: Annotated[Path, typer.Option(help="What to write: a file, for huggingface a folder.")],
    to: Annotated[ExportFormat, typer.Option(help="Whose format to write.")],
    resize: Annotated[
        int | None,
        typer.Option(min=8, help="Shorter side before the crop; else its evaluations', or 256/224 of the size."),
    ] = None,
    log: Log = None,
) -> None:
    """Write a backbone in a format that other software loads."""
    start(log)
    from bingo.stages.export import run
    from bingo.study.jobs import ExportJob

    run(ExportJob(to=to, resize=resize, weights=model, output=output), threads=1)


def doctor(
    study: Annotated[Path | None, typer.Argument(help="Study file to check against this machine too.")] = None,
) -> None:
    """Say what this machine has of what a study needs, and what to do about the rest."""
    start(None)
    from bingo.cli.doctor import diagnose, examine

    text, sound = diagnose(examine(study))
    print(text)
    if not sound:
        raise BingoError("a study would fail here; the lines that begin with fail say why, and what helps")
