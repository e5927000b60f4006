"""`bingo stage NAME`: the command of each stage, built from its job class."""

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
Settings = Annotated[str, typer.Option(help="Settings of the stage as JSON, or @FILE with that JSON.")]
Threads = Annotated[int, typer.Option(min=1, help="Number of CPU threads.")]
Workers = Annotated[int, typer.Option(min=0, help="Number of loader processes; 0 loads in the main process.")]


def run(job: Job, threads: int, workers: int) -> None:
    """Run a stage.

    Raises:
        BingoError: the stage fails with a user error.
    """
    os.environ["OMP_NUM_THREADS"] = str(threads)  # torch and faiss read it at import
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
    """Return a function that typer turns into a command, with an option for each field that is not a setting."""
    no_settings = json.dumps({"version": kind.STAGE_VERSION})

    def command(log: Path | None, threads: int, workers: int = 0, settings: str = no_settings, **files: Any) -> None:
        start(log)
        fields = {name: _value(kind, name, value) for name, value in files.items() if value is not None}
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
    """Return type and default of a field's option; fields of named files become lists of NAME=FILE."""
    field = kind.model_fields[name]
    annotation: Any = list[str] if get_origin(field.annotation) is dict else field.annotation
    default = Parameter.empty if field.is_required() else None
    if default is None:
        annotation |= None
    return Annotated[annotation, typer.Option(help=field.description)], default


def _value(kind: type[Job], name: str, value: Any) -> Any:
    """Convert the value of an option to the value of its field.

    Raises:
        BingoError: a value is not NAME=FILE, or a name occurs twice.
    """
    annotation = kind.model_fields[name].annotation
    if get_origin(annotation) is not dict:
        return value
    files: dict[str, list[Path]] = {}
    for pair in value:
        key, _, path = pair.partition("=")
        if not (key and path):
            raise BingoError(f"--{name}: must be NAME=FILE, found {pair}")
        files.setdefault(key, []).append(Path(path))
    if get_origin(get_args(annotation)[1]) is list:
        return files
    if duplicates := [key for key, paths in files.items() if len(paths) > 1]:
        raise BingoError(f"--{name}: {duplicates[0]} occurs twice; remove one")
    return {key: paths[0] for key, paths in files.items()}


for _kind in JOBS.values():
    if _kind.STAGE != "export":  # `bingo export` is a command for users
        app.command(_kind.STAGE, help=cleandoc(_kind.__doc__ or ""))(_command(_kind))
