"""The command line. Its commands are in `bingo.commands`, `bingo.stages` and `bingo.figures.commands`."""

import logging
import os
import sys
import time
import traceback
from collections.abc import Callable
from typing import Annotated, NoReturn

import typer
from typer.core import TyperGroup

from bingo import commands, stages
from bingo.errors import BingoError
from bingo.figures.commands import app as figure_app
from bingo.invocation import PROCESSES, RANK, start

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
MACHINE = "This machine"
PANELS: dict[str, list[Callable[..., None]]] = {
    "A study": [commands.new, commands.summary],
    STAGES: [
        stages.data,
        stages.pack,
        stages.teacher,
        stages.imported_teacher,
        stages.embeddings,
        stages.bags,
        stages.sheets,
        stages.targets,
        stages.student,
        stages.evaluation,
        stages.detection,
        stages.table,
        stages.text,
        stages.report,
    ],
    "Networks": [commands.inspect, commands.export],
    MACHINE: [commands.doctor],
}
for panel, panel_commands in PANELS.items():
    for command in panel_commands:
        app.command(rich_help_panel=panel)(command)
app.add_typer(figure_app, name="figure", help="Draw one figure of a study.", rich_help_panel=STAGES)

_SECONDS_FOR_THE_FIRST = 5
"""A fault that all processes of a job have is told by the first one; torchrun then ends the others."""
_SECONDS_FOR_THE_CULPRIT = 15
"""Processes that have lost one whose fault it is fail too, and need not say so."""
_PARALLEL = ("embeddings", "evaluation", "student", "targets", "teacher")
"""Stages whose processes share their work; of others each would do all of it, and write the same file."""


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
