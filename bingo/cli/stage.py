"""`bingo stage NAME`: each stage as a command, made from its job's class."""

import json
import os
from collections.abc import Callable
from importlib import import_module
from inspect import Parameter, Signature, cleandoc
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

import typer

from bingo.cli.logs import Log, start
from bingo.errors import BingoError
from bingo.study.job import Job
from bingo.study.stages import JOBS

app = typer.Typer(help="Run one stage, as Snakemake does.", no_args_is_help=True, add_completion=False)
Settings = Annotated[str, typer.Option(help="The stage's settings as JSON, or @FILE that holds it.")]
Threads = Annotated[int, typer.Option(min=1, help="CPU threads to compute with.")]
Workers = Annotated[int, typer.Option(min=0, help="Loader processes; 0 loads in the same process.")]


def run(job: Job, threads: int, workers: int) -> None:
    """Run a stage.

    Raises:
        BingoError: the stage fails by a user's fault.
    """
    os.environ["OMP_NUM_THREADS"] = str(threads)  # torch, and the OpenMP that faiss brings, read it when imported
    stage = import_module(f"bingo.stages.{job.STAGE}")
    if job.DEVICE == "none":
        stage.run(job, threads)
        return
    import torch

    from bingo.training.device import pick_device
    from bingo.training.distributed import init_processes, leave

    torch.set_num_threads(threads)
    stage.run(job, init_processes() if job.DEVICE == "shared" else pick_device(), workers)
    leave()


def _command(kind: type[Job]) -> Callable[..., None]:
    """Return a function with an option for each field of a job that is no setting; typer makes the command of it."""
    no_settings = json.dumps({"version": kind.STAGE_VERSION})

    def command(log: Path | None, threads: int, workers: int = 0, settings: str = no_settings, **given: Any) -> None:
        start(log)
        fields = {name: _value(kind, name, value) for name, value in given.items() if value is not None}
        run(kind.read(settings, fields), threads, workers)

    options = {name: _option(kind, name) for name in kind.roles()}
    if kind.model_fields.keys() - kind.roles():
        options["settings"] = Settings, Parameter.empty
    options |= {"log": (Log, None), "threads": (Threads, 1)}
    if kind.DEVICE != "none":
        options["workers"] = Workers, 0
    command.__annotations__ = {name: annotation for name, (annotation, _) in options.items()}
    command.__signature__ = Signature(  # type: ignore[attr-defined]
        [
            Parameter(name, Parameter.KEYWORD_ONLY, annotation=annotation, default=default)
            for name, (annotation, default) in options.items()
        ]
    )
    return command


def _option(kind: type[Job], name: str) -> tuple[Any, Any]:
    """Return the type and the default of a field's option: a list of texts, NAME=FILE, for files that have names."""
    field = kind.model_fields[name]
    annotation: Any = list[str] if get_origin(field.annotation) is dict else field.annotation
    default = Parameter.empty if field.is_required() else None
    if default is None:
        annotation |= None
    return Annotated[annotation, typer.Option(help=field.description)], default


def _value(kind: type[Job], name: str, value: Any) -> Any:
    """Return an option's value as its field has it.

    Raises:
        BingoError: what should be NAME=FILE is not, or two files have a name that stands for one.
    """
    annotation = kind.model_fields[name].annotation
    if get_origin(annotation) is not dict:
        return value
    files: dict[str, list[Path]] = {}
    for pair in value:
        key, _, path = pair.partition("=")
        if not (key and path):
            raise BingoError(f"--{name}: is NAME=FILE, found {pair}")
        files.setdefault(key, []).append(Path(path))
    if get_origin(get_args(annotation)[1]) is list:
        return files
    if twice := [key for key, paths in files.items() if len(paths) > 1]:
        raise BingoError(f"--{name}: {twice[0]} occurs twice; name each once")
    return {key: paths[0] for key, paths in files.items()}


for _kind in JOBS.values():
    if _kind.STAGE != "export":  # which is a user's command, `bingo export`
        app.command(_kind.STAGE, help=cleandoc(_kind.__doc__ or ""))(_command(_kind))
