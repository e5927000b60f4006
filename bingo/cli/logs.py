"""Logging of a running command, to the terminal and to a file."""

import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Annotated

import typer

from bingo.errors import BingoError

RANK = int(os.environ.get("RANK", "0"))
"""Rank of this process in the job that torchrun started."""
PROCESSES = int(os.environ.get("WORLD_SIZE", "1"))
"""Number of processes of the job."""
Log = Annotated[Path | None, typer.Option(help="Log file. Default: stderr.")]


def start(log: Path | None) -> None:
    """Log progress to ``log`` (default: stderr), and warnings and errors also to stderr.

    Only rank 0 logs progress; all ranks log warnings and errors.

    Raises:
        BingoError: the log file cannot be written.
    """
    stderr = logging.StreamHandler()
    stderr.setFormatter(logging.Formatter("bingo: %(message)s"))
    handlers: list[logging.Handler] = [stderr]
    stderr.setLevel(logging.INFO if RANK == 0 else logging.WARNING)
    if log is not None:
        stderr.setLevel(logging.WARNING)
        try:
            log.parent.mkdir(parents=True, exist_ok=True)
            if RANK == 0:
                log.write_text("")
            file = _LogFile(log, mode="a", encoding="utf-8", errors="backslashreplace")
        except OSError as error:
            message = f"--log: {log} cannot be written ({error.strerror}); check space and permissions"
            raise BingoError(message) from error
        file.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%Y-%m-%d %H:%M:%S"))
        file.setLevel(logging.INFO if RANK == 0 else logging.WARNING)
        handlers.append(file)
    logging.basicConfig(level=logging.INFO, handlers=handlers, force=True)  # replaces the handlers of `bingo launch`
    logging.getLogger("faiss").setLevel(logging.WARNING)  # faiss logs missing builds as information
    if parents := [int(parent) for parent in os.environ.get("BINGO_PARENT", "").split()]:
        _watch(tuple(parents))


class _LogFile(logging.FileHandler):
    """A log file that stops on a write error, such as a full disk, with one warning; the stage continues."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            super().handleError(record)
            return
        logging.getLogger().removeHandler(self)
        stream, self.stream = self.stream, None
        with suppress(OSError):
            if stream is not None:
                stream.close()  # may fail again when it flushes
        message = "--log: %s cannot be written (%s); continuing without a log file"
        logging.getLogger(__name__).warning(message, self.baseFilename, error.strerror)


@cache
def _watch(parents: tuple[int, ...]) -> None:
    """Watch the parent processes; cached, because `bingo launch` and its stage both call `start`."""
    threading.Thread(target=_end_with, args=(parents,), daemon=True).start()


def _end_with(parents: Sequence[int]) -> None:
    """Terminate this process when one of ``parents`` is gone.

    A killed Snakemake cannot stop its jobs, and the next Snakemake would start the same jobs again.
    """
    while True:
        time.sleep(0.5)
        try:
            for parent in parents:
                os.kill(parent, 0)
        except (ProcessLookupError, PermissionError):  # PermissionError: another user's process has the id now
            os.kill(os.getpid(), signal.SIGTERM)
