"""`bingo stage NAME`: each stage as a command, made from its job's class."""

import inspect
import os
from collections.abc import Callable, Iterable
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

import typer

from bingo.cli.logs import Log, start
from bingo.errors import BingoError
from bingo.study.job import Job
from bingo.study.stages import JOBS

app = typer.Typer(help="Run one stage, as Snakemake does.", no_args_is_help=True)
Settings = Annotated[str, typer.Option(help="The stage's settings as JSON, or @FILE that holds it.")]
Threads = Annotated[int, typer.Option(min=1, help="CPU threads to compute with.")]
Workers = Annotated[int, typer.Option(min=0, help="Loader processes; 0 loads in the same process.")]


def run(kind: type[Job], log: Path | None, threads: int, workers: int, settings: str, files: dict[str, Any]) -> None:
    """Run a stage.

    Raises:
        BingoError: the job cannot be read, or the stage fails by a user's fault.
    """
    start(log)
    os.environ["OMP_NUM_THREADS"] = str(threads)  # torch, and the OpenMP that faiss brings, read it when imported
    job = kind.read(settings, files)
    module = import_module(f"bingo.stages.{kind.STAGE}")
    if kind.DEVICE == "none":
        module.run(job, threads)
        return
    from bingo.training.device import pick_device, use_threads
    from bingo.training.distributed import join, leave

    use_threads(threads)
    module.run(job, join() if kind.DEVICE == "shared" else pick_device(), workers)
    leave()


def _command(kind: type[Job]) -> Callable[..., None]:
    """Return a function with an option for each file of a job, from which typer makes the command."""

    def command(log: Path | None, threads: int, workers: int = 0, settings: str = "", **given: Any) -> None:
        files = {name: _files(name, kind, value) for name, value in given.items() if value is not None}
        run(kind, log, threads, workers, settings or f'{{"version": {kind.STAGE_VERSION}}}', files)

    own: dict[str, Any] = {"log": (Log, None), "threads": (Threads, 1)}
    own |= {} if kind.DEVICE == "none" else {"workers": (Workers, 0)}
    own |= {"settings": (Settings, ...)} if kind.model_fields.keys() - kind.roles() else {}
    options = {name: _option(kind, name) for name in kind.roles()} | own
    parameters = [
        inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            annotation=annotation,
            default=inspect.Parameter.empty if default is ... else default,
        )
        for name, (annotation, default) in options.items()
    ]
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {name: annotation for name, (annotation, _) in options.items()}
    command.__doc__ = kind.__doc__
    return command


def _option(kind: type[Job], name: str) -> tuple[Any, Any]:
    """Return the type and the default of a field's option; what is named, NAME=FILE, is a list of texts."""
    field = kind.model_fields[name]
    annotation: Any = field.annotation
    if get_origin(annotation) is dict:
        annotation = list[str]
    optional = not field.is_required()
    if optional and get_origin(annotation) is list:
        annotation = annotation | None
    return Annotated[annotation, typer.Option(help=field.description)], None if optional else ...


def _files(name: str, kind: type[Job], value: Any) -> Any:
    """Return an option's value as its field has it."""
    annotation = kind.model_fields[name].annotation
    if get_origin(annotation) is not dict:
        return value
    several = get_origin(get_args(annotation)[1]) is list
    return (_groups if several else _named)(f"--{name}", value)


def _pairs(option: str, pairs: Iterable[str]) -> list[tuple[str, str]]:
    """Split arguments of the form NAME=FILE.

    Raises:
        BingoError: one has another form; ``option`` names it.
    """
    split = [pair.partition("=") for pair in pairs]
    for name, separator, path in split:
        if not (name and separator and path):
            raise BingoError(f"{option}: is NAME=FILE, found {name}{separator}{path}")
    return [(name, path) for name, _, path in split]


def _named(option: str, pairs: Iterable[str]) -> dict[str, str]:
    """Return the file of each name.

    Raises:
        BingoError: a pair has another form, or a name occurs twice.
    """
    files: dict[str, str] = {}
    for name, path in _pairs(option, pairs):
        if name in files:
            raise BingoError(f"{option}: {name} occurs twice; name each once")
        files[name] = path
    return files


def _groups(option: str, pairs: Iterable[str]) -> dict[str, list[str]]:
    """Return the files of each name."""
    files: dict[str, list[str]] = {}
    for name, path in _pairs(option, pairs):
        files.setdefault(name, []).append(path)
    return files


for _kind in JOBS.values():
    if _kind.STAGE != "export":  # which is a user's command, `bingo export`
        app.command(_kind.STAGE, help=inspect.cleandoc(_kind.__doc__ or ""))(_command(_kind))
