"""The stages as commands: what Snakemake calls, and what can be called by hand.

Settings are the JSON that Snakemake hands to a stage (`bingo.jobs`). A stage's modules are imported inside its command:
`bingo --help` needs no torch.
"""

from pathlib import Path
from typing import Annotated

import typer

from bingo.errors import BingoError, nearest
from bingo.invocation import (
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

Part = Annotated[str | None, typer.Option(help="Make this part of the rows alone, 3-of-8 say, as a shard.")]
Shards = Annotated[list[Path] | None, typer.Option("--shard", help="A shard to gather; repeated for all.")]
Model = Annotated[Path, typer.Option(help="A student's backbone, or a teacher.")]
Events = Annotated[Path | None, typer.Option(help="Folder for TensorBoard's events; without it none are written.")]


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
