"""Commands for users; the stages are in `bingo.cli.stage`. Commands import their modules when they run."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from bingo.cli.logs import Log, start
from bingo.errors import BingoError
from bingo.study.sections import ExportFormat


def new(
    study: Annotated[str, typer.Argument(help="Name of the study: lower-case letters, digits, - and _.")],
    data: Annotated[Path, typer.Option(help="Folder of images: flat, with class folders, or with train/ and val/.")],
    output: Annotated[Path | None, typer.Option(help="Study file to write. Default: STUDY.yaml.")] = None,
    scale: Annotated[
        Literal["trial", "full"] | None,
        typer.Option(
            help="trial: minutes on two cores. full: the paper's networks and schedule. Default: full with a GPU."
        ),
    ] = None,
    teacher: Annotated[
        Path | None, typer.Option(help="Checkpoint to distil (see bingo inspect). Default: train a teacher.")
    ] = None,
) -> None:
    """Write a study file for a folder of images."""
    start(None)
    from bingo.cli.new import write_study

    for line in write_study(study, data, output or Path(f"{study}.yaml"), scale, teacher):
        print(line)


def summary(results: Annotated[Path, typer.Argument(help="Results of a study, for example results/demo.")]) -> None:
    """Print the tables of a study and the paths of its results."""
    start(None)
    if not results.is_dir():
        raise BingoError(f"{results}: no such folder; name the results of a study, results/<study>")
    for path in sorted((results / "tables").glob("*.md")):
        print(path.read_text(encoding="utf-8"))
    for name in ("report.html", "tables", "figures", "bags", "students", "teachers", "evaluation"):
        if (results / name).exists():
            print(results / name)


def inspect(checkpoint: Annotated[Path, typer.Argument(help="Checkpoint file.")]) -> None:
    """Show what a checkpoint contains and whether it can be a teacher."""
    start(None)
    from bingo.importers.inspect import describe

    print(describe(checkpoint))


def export(
    model: Annotated[Path, typer.Argument(help="Backbone of a student, or a teacher.")],
    output: Annotated[Path, typer.Option(help="File to write; a folder for huggingface.")],
    to: Annotated[ExportFormat, typer.Option(help="Format to write.")],
    resize: Annotated[
        int | None,
        typer.Option(
            min=8,
            help="Shorter side in pixels before the crop. Default: as in its evaluations, else 256/224 of the size.",
        ),
    ] = None,
    log: Log = None,
) -> None:
    """Export a backbone to the format of another library."""
    start(log)
    from bingo.stages.export import run
    from bingo.study.jobs import ExportJob

    run(ExportJob(to=to, resize=resize, weights=model, output=output), threads=1)


def doctor(
    study: Annotated[Path | None, typer.Argument(help="Study file to check as well.")] = None,
) -> None:
    """Check whether this machine can run a study."""
    start(None)
    from bingo.cli.doctor import diagnose, examine

    text, passed = diagnose(examine(study))
    print(text)
    if not passed:
        raise BingoError("a study would fail on this machine; fix the findings marked with fail")
