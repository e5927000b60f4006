"""What a running command tells: progress lines, on the terminal and in a log."""

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
"""Position of this process among those that torchrun has started for the same job."""
PROCESSES = int(os.environ.get("WORLD_SIZE", "1"))
"""Their number."""
Log = Annotated[Path | None, typer.Option(help="File for plain progress lines; else they go to stderr.")]


def start(log: Path | None) -> None:
    """Send progress lines to ``log``, and warnings and errors to stderr too; of several processes the first one's.

    Raises:
        BingoError: the log cannot be written.
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
            raise BingoError(f"--log: {log} cannot be written ({error.strerror})") from error
        file.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%Y-%m-%d %H:%M:%S"))
        file.setLevel(logging.INFO if RANK == 0 else logging.WARNING)
        handlers.append(file)
    logging.basicConfig(level=logging.INFO, handlers=handlers, force=True)  # a launch has begun with others
    logging.getLogger("faiss").setLevel(logging.WARNING)  # it logs which of its builds are missing
    if parents := [int(parent) for parent in os.environ.get("BINGO_PARENT", "").split()]:
        _watch(tuple(parents))


class _LogFile(logging.FileHandler):
    """A log that ends where the disk is full; the stage goes on, and says so once on stderr."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            super().handleError(record)
            return
        logging.getLogger().removeHandler(self)
        stream, self.stream = self.stream, None
        with suppress(OSError):
            if stream is not None:
                stream.close()  # tries once more to write what is left
        message = "--log: %s cannot be written (%s); going on without it"
        logging.getLogger(__name__).warning(message, self.baseFilename, error.strerror)


@cache
def _watch(parents: tuple[int, ...]) -> None:
    """Watch processes, once: a launch that goes on as its stage starts twice."""
    threading.Thread(target=_end_with, args=(parents,), daemon=True).start()


def _end_with(parents: Sequence[int]) -> None:
    """End this process when one of the processes ``parents`` is gone.

    A Snakemake that was killed can no longer stop its jobs; the next one would start them beside the old ones.
    """
    while True:
        time.sleep(0.5)
        try:
            for parent in parents:
                os.kill(parent, 0)
        except (ProcessLookupError, PermissionError):  # or its number is a stranger's now
            os.kill(os.getpid(), signal.SIGTERM)
