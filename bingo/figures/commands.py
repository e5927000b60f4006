"""`bingo figure`: one command per kind of figure. Stages are imported inside the commands."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from bingo.errors import BingoError
from bingo.invocation import Listing, Log, Settings, Threads, Workers, read_job, start, use_faiss_threads, use_threads
from bingo.jobs import AccuracyFigureJob, BagSizeFigureJob, MapFigureJob, TrainingFigureJob

app = typer.Typer(help="Draw a figure of a study, as SVG or PNG.", no_args_is_help=True)

Outputs = Annotated[list[Path], typer.Option(help="SVG or PNG to write; may be repeated.")]


@app.command()
def accuracy(
    settings: Settings,
    table: Annotated[Path, typer.Option(help="CSV of a table.")],
    output: Outputs,
    log: Log = None,
) -> None:
    """Draw a table: a line per network, a panel per protocol."""
    start(log)
    from bingo.figures.accuracy import draw_accuracy

    draw_accuracy(read_job(AccuracyFigureJob, settings), table, output)


@app.command()
def bag_size(
    settings: Settings,
    output: Outputs,
    results: Annotated[list[Path] | None, typer.Argument(help="Result files of the evaluation stage.")] = None,
    log: Log = None,
) -> None:
    """Draw accuracy against bag size."""
    start(log)
    from bingo.figures.bag_size import draw_bag_size

    draw_bag_size(read_job(BagSizeFigureJob, settings), results or [], output)


@app.command()
def training(
    settings: Settings,
    output: Outputs,
    logs: Annotated[list[str], typer.Argument(help="NAME=CSV of each run; NAME/seed-N looks like NAME.")],
    log: Log = None,
) -> None:
    """Draw training curves."""
    start(log)
    from bingo.figures.training import draw_training

    named = {name: Path(path) for name, separator, path in (pair.partition("=") for pair in logs) if separator}
    if len(named) < len(logs):
        raise BingoError(f"figure training: each log is NAME=CSV with a name of its own, found: {' '.join(logs)}")
    draw_training(read_job(TrainingFigureJob, settings), named, output)


@app.command()
def purity(
    listing: Listing,
    embeddings: Annotated[Path, typer.Option(help="Embeddings of the training images.")],
    teacher: Annotated[Path, typer.Option(help="The teacher that made the embeddings.")],
    output: Outputs,
    log: Log = None,
    threads: Threads = 1,
) -> None:
    """Draw how many of an image's nearest neighbours have its class, against their number."""
    start(log)
    use_faiss_threads(threads)
    from bingo.figures.neighbours import draw_purity

    draw_purity(listing, embeddings, teacher, output)


@app.command()
def similarity(
    listing: Listing,
    bags: Annotated[Path, typer.Option(help="Bags of nearest neighbours.")],
    output: Outputs,
    log: Log = None,
) -> None:
    """Draw how similar the members of bags are to their anchors."""
    start(log)
    from bingo.figures.neighbours import draw_similarity

    draw_similarity(listing, bags, output)


@app.command("map")
def feature_map(
    settings: Settings,
    listing: Annotated[Path, typer.Option(help="Listing of the images to show (data stage).")],
    split: Annotated[Literal["train", "val"], typer.Option(help="Which images the listing lists.")],
    model: Annotated[Path, typer.Option(help="A student's backbone, or a teacher.")],
    output: Outputs,
    log: Log = None,
    threads: Threads = 1,
    workers: Workers = 0,
) -> None:
    """Draw a network's features in the plane, by t-SNE."""
    start(log)
    use_threads(threads)
    from bingo.engine.device import pick_device
    from bingo.figures.map import draw_map

    job = read_job(MapFigureJob, settings)
    draw_map(job, listing, split, model, output, pick_device(), workers)
