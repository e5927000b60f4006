"""The command line for users. The commands of stages, which Snakemake calls, are in `bingo.cli.stage`."""

import logging
import sys
import time
import traceback
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from bingo.cli import commands
from bingo.cli.logs import PROCESSES, RANK, start
from bingo.errors import BingoError

INTRODUCTION = """\
BINGO trains small vision backbones without labels. A small student learns to map an image, and the members of its bag
of nearest neighbours, to the embedding of the image by a large self-supervised teacher.

To get from a folder of images to a trained student and a report, run in the folder of this project:

  bingo new birds --data photos                 write birds.yaml
  snakemake --cores all --configfile birds.yaml run the missing stages
  bingo summary results/birds                   print the tables
"""
EPILOG = "docs/ explains studies, methods and protocols; config/README.md explains every key of a study file."


class _LazyStages(TyperGroup):
    """Builds the stage commands only when one is called. This keeps `bingo --help` fast."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args[0] != "stage":
            return super().resolve_command(ctx, args)
        from bingo.cli.stage import app as stages

        return "stage", typer.main.get_command(stages), args[1:]


app = typer.Typer(
    cls=_LazyStages, help=INTRODUCTION, epilog=EPILOG, pretty_exceptions_enable=False, no_args_is_help=True
)
for command in (commands.new, commands.summary, commands.doctor, commands.inspect, commands.export):
    app.command()(command)


@app.command()
def stage() -> None:
    """Run one stage, as Snakemake does."""


_ROOT_CAUSE_DELAY_SECONDS = 5
"""Delay of an error on ranks above 0: rank 0 reports an error that all ranks share, and torchrun ends the others."""
_LOST_PEER_DELAY_SECONDS = 15
"""Delay of unexpected errors if there are several processes, so that the root cause prints first."""


# All options after the name of the stage belong to the stage, including --help.
@app.command(hidden=True, context_settings={"allow_interspersed_args": False})
def launch(
    stage: Annotated[list[str], typer.Argument(help="Name and options of the stage.")],
    gpus: Annotated[int, typer.Option(min=0, help="Number of GPUs over all nodes; 0 computes on the CPU.")] = 1,
    nodes: Annotated[int, typer.Option(min=1, help="Number of nodes of the SLURM job.")] = 1,
    processes: Annotated[
        int | None, typer.Option(min=1, help="Number of processes on one node. Default: one per GPU.")
    ] = None,
) -> None:
    """Run a stage with one process per GPU, on GPUs that no other launch of this user has locked."""
    start(None)
    from bingo.cli.launch import launch as prepare
    from bingo.study.stages import JOBS

    shared = [name for name, job in JOBS.items() if job.DEVICE == "shared"]
    if (nodes > 1 or (gpus if processes is None else processes) > 1) and stage[0] not in shared:
        raise BingoError(f"launch: {stage[0]} runs in one process, unlike {', '.join(shared)}; set --processes 1")
    prepare(["stage", *stage], gpus, nodes, processes)
    sys.argv[1:] = ["stage", *stage]
    app()


def main() -> None:
    """Run the command line. User errors print one line and exit with code 1; bugs print a traceback."""
    try:
        app()
    except BingoError as error:
        if RANK > 0:
            time.sleep(_ROOT_CAUSE_DELAY_SECONDS)
        logging.getLogger("bingo").error("error: %s", error)
        sys.exit(1)
    except Exception:
        if PROCESSES == 1:
            raise
        time.sleep(_LOST_PEER_DELAY_SECONDS)
        traceback.print_exc()
        sys.exit(1)
