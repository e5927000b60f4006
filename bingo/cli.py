"""The command line: one subcommand per stage.

Settings are the JSON that Snakemake hands to a stage (`bingo.jobs`), so what a rule runs can be run by hand.
Imports of stages stand inside the commands: `bingo --help` needs no torch.
"""

import logging
import os
import sys
import time
import traceback
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from typer.core import TyperGroup

from bingo import commands
from bingo.command import (
    PROCESSES,
    RANK,
    Listing,
    Log,
    Output,
    Settings,
    Threads,
    Workers,
    named_files,
    read_job,
    start,
    unique_files,
    use_faiss_threads,
    use_threads,
)
from bingo.errors import BingoError, nearest
from bingo.export import ExportFormat
from bingo.figures.commands import app as figure_app
from bingo.jobs import (
    BagsJob,
    DataJob,
    DetectionJob,
    EmbeddingsJob,
    EvaluationJob,
    ImportJob,
    PackJob,
    ReportJob,
    StudentJob,
    TableJob,
    TargetsJob,
    TeacherJob,
    TextJob,
)

INTRODUCTION = """\
BINGO makes small vision backbones strong without labels: a student learns to put an image, and the members of its bag
of nearest neighbours, where a large self-supervised teacher puts the image.

From a folder of images to a trained student and a report, in the folder of this project:

  bingo new birds --data photos/birds           write birds.yaml
  snakemake --cores all --configfile birds.yaml run what is not yet there
  bingo summary results/birds                   print its tables

Before that, bingo doctor says whether this machine has what it takes.
"""
EXAMPLES = """\
Examples:

  bingo doctor birds.yaml      is all here that this study needs?
  bingo inspect moco.pth.tar   what is this file, can it be a teacher?
  bingo student --help         what a stage reads and writes
  snakemake -n -p              how Snakemake would call the stages

README.md explains studies, methods and protocols, config/README.md every key of a study file.
"""


class _InOrder(TyperGroup):
    """Commands in the order in which they are needed: typer would put groups of commands first."""

    def list_commands(self, ctx: typer.Context) -> list[str]:  # type: ignore[override]
        names = [name for name in super().list_commands(ctx) if name != "figure"]
        names.insert(names.index("report"), "figure")
        return names


app = typer.Typer(
    cls=_InOrder, help=INTRODUCTION, epilog=EXAMPLES, pretty_exceptions_enable=False, no_args_is_help=True
)
STAGES = "Stages, in the order in which Snakemake runs them"
study_command = app.command(rich_help_panel="A study")
stage = app.command(rich_help_panel=STAGES)
network_command = app.command(rich_help_panel="Networks")
MACHINE = "This machine"

study_command(commands.new)
study_command(commands.summary)
app.add_typer(figure_app, name="figure", help="Draw one figure of a study.", rich_help_panel=STAGES)


_SECONDS_FOR_THE_FIRST = 5
"""A fault that all processes of a job have is told by the first one; torchrun then ends the others."""
_SECONDS_FOR_THE_CULPRIT = 15
"""Processes that have lost one whose fault it is fail too, and need not say so."""
_PARALLEL = ("embeddings", "evaluation", "student", "targets", "teacher")
"""Stages whose processes share their work; of others each would do all of it, and write the same file."""
Part = Annotated[str | None, typer.Option(help="Make this part of the rows alone, 3-of-8 say, as a shard.")]
Shards = Annotated[list[Path] | None, typer.Option("--shard", help="A shard to gather; repeated for all.")]
Model = Annotated[Path, typer.Option(help="A student's backbone, or a teacher.")]
Events = Annotated[Path | None, typer.Option(help="Folder for TensorBoard's events; without it none are written.")]


@stage
def data(
    settings: Settings,
    key: Annotated[str, typer.Option(help="Key of the study that describes the images, for messages.")],
    output: Output,
    train_listing: Annotated[Path | None, typer.Option(help="Listing of training images, for validation.")] = None,
    log: Log = None,
    threads: Threads = 1,
) -> None:
    """List the images of one split, each file decoded once to prove it sound."""
    start(log)
    from bingo.data.listing import write_listing

    write_listing(read_job(DataJob, settings), key, train_listing, output, threads)


@stage
def pack(
    settings: Settings,
    listing: Listing,
    output: Output,
    log: Log = None,
    threads: Threads = 1,
) -> None:
    """Copy the images of a folder, as they are or shortened, into one file."""
    start(log)
    use_threads(1)  # threads work on images of their own
    from bingo.data.pack import write_pack

    write_pack(read_job(PackJob, settings), listing, output, threads)


@stage
def teacher(
    settings: Settings,
    name: Annotated[str, typer.Option(help="Name for progress lines.")],
    listing: Listing,
    output: Output,
    training_log: Annotated[Path, typer.Option(help="CSV with a line per epoch.")],
    events: Events = None,
    log: Log = None,
    threads: Threads = 1,
    workers: Workers = 0,
) -> None:
    """Pretrain a teacher with MoCo-v2."""
    start(log)
    use_threads(threads)
    from bingo.engine.distributed import join
    from bingo.teacher.stage import train_teacher

    train_teacher(read_job(TeacherJob, settings), name, listing, output, training_log, join(), workers, events)


@stage
def imported_teacher(
    settings: Settings,
    checkpoint: Annotated[Path, typer.Option(help="File of weights.")],
    output: Output,
    log: Log = None,
    threads: Threads = 1,
) -> None:
    """Take over a teacher that somebody has trained."""
    start(log)
    use_threads(threads)
    from bingo.teacher.stage import import_teacher

    import_teacher(read_job(ImportJob, settings), checkpoint, output)


@network_command
def inspect(checkpoint: Annotated[Path, typer.Argument(help="File of weights.")]) -> None:
    """Say what a file of weights is, and whether it can be a teacher."""
    start(None)
    from bingo.checkpoints.inspect import describe

    print(describe(checkpoint))


@stage
def embeddings(
    settings: Settings,
    listing: Listing,
    teacher: Annotated[Path, typer.Option(help="The teacher.")],
    output: Output,
    part: Part = None,
    shard: Shards = None,
    log: Log = None,
    threads: Threads = 1,
    workers: Workers = 0,
) -> None:
    """Embed every training image with a teacher."""
    start(log)
    use_threads(threads)
    from bingo.embeddings.stage import make_embeddings, make_embeddings_shard
    from bingo.engine.distributed import join

    job = read_job(EmbeddingsJob, settings)
    if part is None:
        make_embeddings(job, listing, teacher, output, join(), workers, shard or [])
    else:
        make_embeddings_shard(job, listing, teacher, output, join(), workers, part)


@stage
def bags(
    settings: Settings,
    listing: Listing,
    output: Output,
    teacher: Annotated[Path | None, typer.Option(help="The teacher that made the embeddings.")] = None,
    embeddings: Annotated[Path | None, typer.Option(help="Embeddings of the training images.")] = None,
    part: Part = None,
    shard: Shards = None,
    log: Log = None,
    threads: Threads = 1,
) -> None:
    """Group images into bags."""
    start(log)
    use_faiss_threads(threads)
    from bingo.bags.stage import make_bags, make_bags_shard

    job = read_job(BagsJob, settings)
    if part is None:
        make_bags(job, listing, teacher, embeddings, output, shard or [])
    else:
        make_bags_shard(job, listing, teacher, embeddings, output, part)


@stage
def sheets(
    listing: Listing,
    bags: Annotated[Path, typer.Option(help="Bags to show.")],
    page: Annotated[list[str], typer.Option(help="PAGE=PNG to write; PAGE is random, more, best or worst.")],
    log: Log = None,
) -> None:
    """Draw contact sheets of bags."""
    start(log)
    from bingo.bags.sheet import PAGES
    from bingo.bags.stage import make_sheets

    pages = unique_files("--page", page)
    if unknown := [name for name in pages if name not in PAGES]:
        raise BingoError(f"--page: there is no page {unknown[0]}{nearest(unknown[0], PAGES)}")
    make_sheets(listing, bags, {name: pages[name] for name in PAGES if name in pages})


@stage
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
    start(log)
    use_threads(threads)
    from bingo.engine.distributed import join
    from bingo.targets.stage import make_targets

    make_targets(read_job(TargetsJob, settings), listing, teacher, output, join(), workers)


@stage
def student(
    settings: Settings,
    name: Annotated[str, typer.Option(help="Name for progress lines.")],
    listing: Listing,
    output: Annotated[Path, typer.Option(help="Folder for backbone, head and log.csv.")],
    teacher: Annotated[Path | None, typer.Option(help="Teacher to distil.")] = None,
    targets: Annotated[list[Path] | None, typer.Option(help="The teacher's stored outputs, in its place.")] = None,
    bags: Annotated[Path | None, typer.Option(help="Bags to draw positives from.")] = None,
    events: Events = None,
    log: Log = None,
    threads: Threads = 1,
    workers: Workers = 0,
) -> None:
    """Train a student, alone or from a teacher and its bags."""
    start(log)
    use_threads(threads)
    from bingo.engine.distributed import join
    from bingo.student.stage import train_student

    job = read_job(StudentJob, settings)
    train_student(job, name, listing, teacher, targets or [], bags, output, join(), workers, events)


@stage
def evaluation(
    settings: Settings,
    listing: Listing,
    val_listing: Annotated[Path, typer.Option(help="Listing of the validation images.")],
    model: Model,
    output: Output,
    label_list: Annotated[Path | None, typer.Option(help="File that names the images whose labels are used.")] = None,
    log: Log = None,
    threads: Threads = 1,
    workers: Workers = 0,
) -> None:
    """Measure a backbone by a named protocol."""
    start(log)
    use_threads(threads)
    from bingo.engine.distributed import join
    from bingo.evaluation.stage import evaluate

    job = read_job(EvaluationJob, settings)
    evaluate(job, listing, val_listing, model, label_list, output, join(), workers)


@stage
def detection(
    settings: Settings,
    images: Annotated[Path, typer.Option(help="Folder of training images.")],
    annotations: Annotated[Path, typer.Option(help="Their annotations, COCO's JSON.")],
    val_images: Annotated[Path, typer.Option(help="Folder of validation images.")],
    val_annotations: Annotated[Path, typer.Option(help="Their annotations, COCO's JSON.")],
    model: Model,
    output: Output,
    log: Log = None,
    threads: Threads = 1,
    workers: Workers = 0,
) -> None:
    """Train a detector on a backbone, and measure it."""
    start(log)
    use_threads(threads)
    from bingo.detection.stage import detect
    from bingo.engine.device import pick_device

    job = read_job(DetectionJob, settings)
    detect(job, images, annotations, val_images, val_annotations, model, output, pick_device(), workers)


@network_command
def export(
    model: Annotated[Path, typer.Argument(help="A student's backbone, or a teacher.")],
    output: Annotated[Path, typer.Option(help="What to write: a file, for huggingface a folder.")],
    to: Annotated[ExportFormat, typer.Option(help="Whose format to write.")],
    resize: Annotated[
        int | None, typer.Option(min=8, help="Shorter side before evaluation's crop; else 256/224 of the size.")
    ] = None,
    log: Log = None,
) -> None:
    """Write a backbone in a format that other software loads."""
    start(log)
    from bingo.export.stage import export_backbone

    export_backbone(model, output, to, resize)


@stage
def table(
    settings: Settings,
    output: Output,
    results: Annotated[list[Path] | None, typer.Argument(help="Result files of the evaluation stage.")] = None,
    published: Annotated[Path | None, typer.Option(help="CSV of published numbers.")] = None,
    log: Log = None,
) -> None:
    """Gather result files into a tidy CSV."""
    start(log)
    from bingo.tables.stage import make_table

    make_table(read_job(TableJob, settings), results or [], published, output)


@stage
def text(
    settings: Settings,
    table: Annotated[Path, typer.Option(help="CSV of a table.")],
    markdown: Annotated[Path, typer.Option(help="Markdown to write.")],
    latex: Annotated[Path, typer.Option(help="LaTeX to write.")],
    log: Log = None,
) -> None:
    """Render a table as Markdown and LaTeX."""
    start(log)
    from bingo.tables.stage import make_text

    make_text(read_job(TextJob, settings), table, markdown, latex)


@stage
def report(
    settings: Settings,
    output: Output,
    table: Annotated[list[Path] | None, typer.Option(help="CSV of a table; may be repeated.")] = None,
    figure: Annotated[list[Path] | None, typer.Option(help="SVG of a figure; may be repeated.")] = None,
    sheet: Annotated[list[str] | None, typer.Option(help="BAGS/PAGE=PNG of a contact sheet; may be repeated.")] = None,
    bags: Annotated[list[Path] | None, typer.Option(help="Bags; may be repeated.")] = None,
    model: Annotated[list[Path] | None, typer.Option(help="Teacher or student; may be repeated.")] = None,
    benchmark: Annotated[list[str] | None, typer.Option(help="STAGE=TSV of a job's cost; may be repeated.")] = None,
    log: Log = None,
) -> None:
    """Write a study's report as one HTML page."""
    start(log)
    from bingo.report.stage import write_report

    sheets = unique_files("--sheet", sheet or [])
    benchmarks: dict[str, list[Path]] = {}
    for stage, path in named_files("--benchmark", benchmark or []):
        benchmarks.setdefault(stage, []).append(path)
    job = read_job(ReportJob, settings)
    write_report(job, table or [], figure or [], sheets, bags or [], model or [], benchmarks, output)


app.command(rich_help_panel=MACHINE)(commands.doctor)


# What follows the stage's name is the stage's, --help too.
@app.command(rich_help_panel=MACHINE, context_settings={"allow_interspersed_args": False})
def launch(
    stage: Annotated[list[str], typer.Argument(help="The stage, and its options.")],
    gpus: Annotated[int, typer.Option(min=0, help="GPUs, over all nodes; 0 computes on the CPU.")] = 1,
    nodes: Annotated[int, typer.Option(min=1, help="Nodes of the SLURM job.")] = 1,
    processes: Annotated[int | None, typer.Option(min=1, help="Processes on one node; else one per GPU.")] = None,
) -> None:
    """Run a stage with one process per GPU, on GPUs that no other launch of this user holds."""
    start(None)
    from bingo.launch import launch as become

    if (nodes > 1 or (gpus if processes is None else processes) > 1) and stage[0] not in _PARALLEL:
        raise BingoError(f"launch: {stage[0]} computes in one process, not as {', '.join(_PARALLEL)}; --processes 1")
    become(stage, gpus, nodes, processes)
    sys.argv[1:] = stage
    app()


def main() -> None:
    """Run the command line; a user's fault ends with one line and exit code 1, a bug with its traceback."""
    try:
        app()
    except BingoError as error:
        if RANK > 0:
            time.sleep(_SECONDS_FOR_THE_FIRST)
        logging.getLogger("bingo").error("error: %s", error)
        _end(1)
    except SystemExit as end:
        if not end.code:
            raise
        _end(end.code)
    except Exception:
        if PROCESSES == 1:
            raise
        time.sleep(_SECONDS_FOR_THE_CULPRIT)
        traceback.print_exc()
        _end(1)


def _end(code: str | int) -> NoReturn:
    """End this process; one of several at once, because on its way out NCCL would wait for the others."""
    if PROCESSES == 1:
        sys.exit(code)
    logging.shutdown()
    os._exit(code if isinstance(code, int) else 1)
