"""The command line: one subcommand per stage.

Settings are the JSON that Snakemake hands to a stage (`bingo.jobs`), so what a rule runs can be run by hand.
Imports of stages stand inside the commands: `bingo --help` needs no torch.
"""

import logging
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Annotated, TypeVar

import typer
from pydantic import ValidationError

from bingo.errors import BingoError
from bingo.jobs import (
    BagsJob,
    DataJob,
    EmbeddingsJob,
    EvaluationJob,
    ImportJob,
    Job,
    ReportJob,
    StudentJob,
    TableJob,
    TargetsJob,
    TeacherJob,
    TextJob,
)

app = typer.Typer(
    help="BINGO: distil small vision backbones without labels. `snakemake` chains these stages.",
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    add_completion=False,
)

AnyJob = TypeVar("AnyJob", bound=Job)
Settings = Annotated[str, typer.Option(help="The stage's settings as JSON, or @FILE that holds it.")]
Listing = Annotated[Path, typer.Option(help="Listing of the training images (data stage).")]
Output = Annotated[Path, typer.Option(help="What to write.")]
Log = Annotated[Path | None, typer.Option(help="File for plain progress lines; else they go to stderr.")]
Threads = Annotated[int, typer.Option(min=1, help="CPU threads to compute with.")]
Workers = Annotated[int, typer.Option(min=0, help="Loader processes; 0 loads in the same process.")]


@app.command()
def data(
    settings: Settings,
    output: Output,
    train_listing: Annotated[Path | None, typer.Option(help="Listing of training images, for validation.")] = None,
    log: Log = None,
    threads: Threads = 1,
) -> None:
    """List the images of one split, each file decoded once to prove it sound."""
    _start(log)
    from bingo.data.listing import write_listing

    write_listing(_job(DataJob, settings), train_listing, output, threads)


@app.command()
def teacher(
    settings: Settings,
    name: Annotated[str, typer.Option(help="Name for progress lines.")],
    listing: Listing,
    output: Output,
    training_log: Annotated[Path, typer.Option(help="CSV with a line per epoch.")],
    log: Log = None,
    threads: Threads = 1,
    workers: Workers = 0,
) -> None:
    """Pretrain a teacher with MoCo-v2."""
    _start(log)
    _use_threads(threads)
    from bingo.engine.device import pick_device
    from bingo.teacher.stage import train_teacher

    train_teacher(_job(TeacherJob, settings), name, listing, output, training_log, pick_device(), workers)


@app.command()
def imported_teacher(
    settings: Settings,
    checkpoint: Annotated[Path, typer.Option(help="File of weights.")],
    output: Output,
    log: Log = None,
    threads: Threads = 1,
) -> None:
    """Take over a teacher that somebody has trained."""
    _start(log)
    _use_threads(threads)
    from bingo.teacher.stage import import_teacher

    import_teacher(_job(ImportJob, settings), checkpoint, output)


@app.command()
def inspect(checkpoint: Annotated[Path, typer.Argument(help="File of weights.")]) -> None:
    """Say what a file of weights is, and whether it can be a teacher."""
    _start(None)
    from bingo.checkpoints.inspect import describe

    print(describe(checkpoint))


@app.command()
def embeddings(
    settings: Settings,
    listing: Listing,
    teacher: Annotated[Path, typer.Option(help="The teacher.")],
    output: Output,
    log: Log = None,
    threads: Threads = 1,
    workers: Workers = 0,
) -> None:
    """Embed every training image with a teacher."""
    _start(log)
    _use_threads(threads)
    from bingo.embeddings.stage import make_embeddings
    from bingo.engine.device import pick_device

    make_embeddings(_job(EmbeddingsJob, settings), listing, teacher, output, pick_device(), workers)


@app.command()
def bags(
    settings: Settings,
    listing: Listing,
    output: Output,
    teacher: Annotated[Path | None, typer.Option(help="The teacher that made the embeddings.")] = None,
    embeddings: Annotated[Path | None, typer.Option(help="Embeddings of the training images.")] = None,
    log: Log = None,
    threads: Threads = 1,
) -> None:
    """Group images into bags."""
    _start(log)
    _use_threads(threads)
    from bingo.bags.stage import make_bags

    make_bags(_job(BagsJob, settings), listing, teacher, embeddings, output)


@app.command()
def sheet(
    listing: Listing,
    bags: Annotated[Path, typer.Option(help="Bags to show.")],
    output: Output,
    log: Log = None,
) -> None:
    """Draw a contact sheet of bags."""
    _start(log)
    from bingo.bags.stage import make_sheet

    make_sheet(listing, bags, output)


@app.command()
def targets(
    settings: Settings,
    listing: Listing,
    teacher: Annotated[Path, typer.Option(help="The teacher.")],
    output: Output,
    log: Log = None,
    threads: Threads = 1,
    workers: Workers = 0,
) -> None:
    """Store a teacher's outputs for random views of every training image."""
    _start(log)
    _use_threads(threads)
    from bingo.engine.device import pick_device
    from bingo.targets.stage import make_targets

    make_targets(_job(TargetsJob, settings), listing, teacher, output, pick_device(), workers)


@app.command()
def student(
    settings: Settings,
    name: Annotated[str, typer.Option(help="Name for progress lines.")],
    listing: Listing,
    output: Annotated[Path, typer.Option(help="Folder for backbone, head and log.csv.")],
    teacher: Annotated[Path | None, typer.Option(help="Teacher to distil.")] = None,
    targets: Annotated[list[Path] | None, typer.Option(help="The teacher's stored outputs, in its place.")] = None,
    bags: Annotated[Path | None, typer.Option(help="Bags to draw positives from.")] = None,
    log: Log = None,
    threads: Threads = 1,
    workers: Workers = 0,
) -> None:
    """Train a student, alone or from a teacher and its bags."""
    _start(log)
    _use_threads(threads)
    from bingo.engine.device import pick_device
    from bingo.student.stage import train_student

    job = _job(StudentJob, settings)
    train_student(job, name, listing, teacher, targets or [], bags, output, pick_device(), workers)


@app.command()
def evaluation(
    settings: Settings,
    listing: Listing,
    val_listing: Annotated[Path, typer.Option(help="Listing of the validation images.")],
    model: Annotated[Path, typer.Option(help="A student's backbone, or a teacher.")],
    output: Output,
    log: Log = None,
    threads: Threads = 1,
    workers: Workers = 0,
) -> None:
    """Measure a frozen backbone by a named protocol."""
    _start(log)
    _use_threads(threads)
    from bingo.engine.device import pick_device
    from bingo.evaluation.stage import evaluate

    evaluate(_job(EvaluationJob, settings), listing, val_listing, model, output, pick_device(), workers)


@app.command()
def table(
    settings: Settings,
    output: Output,
    results: Annotated[list[Path] | None, typer.Argument(help="Result files of the evaluation stage.")] = None,
    log: Log = None,
) -> None:
    """Gather result files into a tidy CSV."""
    _start(log)
    from bingo.tables.stage import make_table

    make_table(_job(TableJob, settings), results or [], output)


@app.command()
def text(
    settings: Settings,
    table: Annotated[Path, typer.Option(help="CSV of a table.")],
    markdown: Annotated[Path, typer.Option(help="Markdown to write.")],
    latex: Annotated[Path, typer.Option(help="LaTeX to write.")],
    log: Log = None,
) -> None:
    """Render a table as Markdown and LaTeX."""
    _start(log)
    from bingo.tables.stage import make_text

    make_text(_job(TextJob, settings), table, markdown, latex)


@app.command()
def accuracy_figure(
    table: Annotated[Path, typer.Option(help="CSV of a table.")],
    output: Annotated[list[Path], typer.Option(help="SVG or PNG to write; may be repeated.")],
    log: Log = None,
) -> None:
    """Draw a table as bars."""
    _start(log)
    from bingo.figures.stage import draw_accuracy

    draw_accuracy(table, output)


@app.command()
def training_figure(
    output: Annotated[list[Path], typer.Option(help="SVG or PNG to write; may be repeated.")],
    logs: Annotated[list[str], typer.Argument(help="NAME=CSV of each run; NAME/seed-N shares NAME's colour.")],
    log: Log = None,
) -> None:
    """Draw training curves."""
    _start(log)
    from bingo.figures.stage import draw_training

    named = {name: Path(path) for name, separator, path in (pair.partition("=") for pair in logs) if separator}
    if len(named) < len(logs):
        raise BingoError(f"training-figure: each log is NAME=CSV with a name of its own, found: {' '.join(logs)}")
    draw_training(named, output)


@app.command()
def report(
    settings: Settings,
    output: Output,
    table: Annotated[list[Path] | None, typer.Option(help="CSV of a table; may be repeated.")] = None,
    figure: Annotated[list[Path] | None, typer.Option(help="SVG or PNG; may be repeated.")] = None,
    sheet: Annotated[list[Path] | None, typer.Option(help="Contact sheet; may be repeated.")] = None,
    bags: Annotated[list[Path] | None, typer.Option(help="Bags of each sheet, in order.")] = None,
    model: Annotated[list[Path] | None, typer.Option(help="Teacher or student; may be repeated.")] = None,
    log: Log = None,
) -> None:
    """Write a study's report as one HTML page."""
    _start(log)
    from bingo.report.stage import write_report

    job = _job(ReportJob, settings)
    write_report(job, table or [], figure or [], sheet or [], bags or [], model or [], output)


@app.command()
def summary(results: Annotated[Path, typer.Argument(help="A study's folder, results/demo say.")]) -> None:
    """Print a study's tables and where everything is."""
    _start(None)
    if not results.is_dir():
        raise BingoError(f"{results}: no such folder; a study's results are in results/<study>")
    for path in sorted((results / "tables").glob("*.md")):
        print(path.read_text(encoding="utf-8"))
    places = ["report.html", "tables", "figures", "bags", "students", "teachers", "evaluation"]
    for place in places:
        if (results / place).exists():
            print(results / place)


def main() -> None:
    """Run the command line; a user's fault ends with one line and exit code 1, a bug with its traceback."""
    try:
        app()
    except BingoError as error:
        logging.getLogger("bingo").error("error: %s", error)
        sys.exit(1)


def _start(log: Path | None) -> None:
    """Send progress lines to ``log``, and warnings and errors to stderr too."""
    stderr = logging.StreamHandler()
    stderr.setFormatter(logging.Formatter("bingo: %(message)s"))
    handlers: list[logging.Handler] = [stderr]
    if log is not None:
        stderr.setLevel(logging.WARNING)
        try:
            log.parent.mkdir(parents=True, exist_ok=True)
            file = logging.FileHandler(log, mode="w", encoding="utf-8", errors="backslashreplace")
        except OSError as error:
            raise BingoError(f"--log: {log} cannot be written ({error.strerror})") from error
        file.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%Y-%m-%d %H:%M:%S"))
        handlers.append(file)
    logging.basicConfig(level=logging.INFO, handlers=handlers)
    if parent := os.environ.get("BINGO_PARENT"):
        threading.Thread(target=_end_with, args=(int(parent),), daemon=True).start()


def _use_threads(threads: int) -> None:
    os.environ["OMP_NUM_THREADS"] = str(threads)  # faiss brings an OpenMP of its own, which reads this
    import torch

    torch.set_num_threads(threads)


def _end_with(parent: int) -> None:
    """End this process when process ``parent`` is gone.

    A Snakemake that was killed can no longer stop its jobs; the next one would start them beside the old ones.
    """
    while True:
        time.sleep(0.5)
        try:
            os.kill(parent, 0)
        except ProcessLookupError:
            os.kill(os.getpid(), signal.SIGTERM)


def _job(kind: type[AnyJob], settings: str) -> AnyJob:
    """Read a stage's settings.

    Raises:
        BingoError: they are no JSON, or not those of this stage.
    """
    try:
        content = Path(settings[1:]).read_text(encoding="utf-8") if settings.startswith("@") else settings
        return kind.model_validate_json(content)
    except (OSError, UnicodeDecodeError) as error:
        raise BingoError(f"--settings: {settings[1:]} cannot be read ({error})") from error
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in fault["loc"])
        raise BingoError(f"--settings: {where}{': ' if where else ''}{fault['msg']}") from error
