"""What every command shares: options, progress lines, threads, settings."""

import ctypes
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Annotated, TypeVar

import typer
from pydantic import ValidationError

from bingo.errors import BingoError
from bingo.jobs import Job

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
"""What can be set in glibc's memory allocation, from <malloc.h>."""
RANK = int(os.environ.get("RANK", "0"))
"""Position of this process among those that torchrun has started for the same job."""
PROCESSES = int(os.environ.get("WORLD_SIZE", "1"))
"""Their number."""
AnyJob = TypeVar("AnyJob", bound=Job)
Settings = Annotated[str, typer.Option(help="The stage's settings as JSON, or @FILE that holds it.")]
Listing = Annotated[Path, typer.Option(help="Listing of the training images (data stage).")]
Output = Annotated[Path, typer.Option(help="What to write.")]
Log = Annotated[Path | None, typer.Option(help="File for plain progress lines; else they go to stderr.")]
Threads = Annotated[int, typer.Option(min=1, help="CPU threads to compute with.")]
Workers = Annotated[int, typer.Option(min=0, help="Loader processes; 0 loads in the same process.")]


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
    logging.getLogger("faiss").setLevel(logging.WARNING)  # it tells which builds of itself it has not
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


def use_threads(threads: int) -> None:
    """Compute with so many CPU threads, in torch too."""
    use_faiss_threads(threads)
    keep_freed_memory()
    import torch

    torch.set_num_threads(threads)


def keep_freed_memory() -> None:
    """Let the C library keep freed memory: each batch would ask the system for it anew, and wait.

    What lies below a block in use is kept whatever its size; of what lies above the last one, up to 2 GiB.
    """
    with suppress(AttributeError):  # another C library than glibc
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


def use_faiss_threads(threads: int) -> None:
    """Compute with so many CPU threads where torch is not needed."""
    os.environ["OMP_NUM_THREADS"] = str(threads)  # faiss brings an OpenMP of its own, which reads this


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


def read_job(kind: type[AnyJob], settings: str) -> AnyJob:
    """Read a stage's settings.

    Raises:
        BingoError: they are no JSON, or not those of this stage.
    """
    try:
        content = Path(settings[1:]).read_text(encoding="utf-8") if settings.startswith("@") else settings
        return kind.model_validate_json(content)
    except (OSError, UnicodeDecodeError) as error:
        raise BingoError(f"--settings: {settings[1:]} cannot be read ({error})") from error
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in fault["loc"])
        raise BingoError(f"--settings: {where}{': ' if where else ''}{fault['msg']}") from error


def named_files(option: str, pairs: Iterable[str]) -> list[tuple[str, Path]]:
    """Split arguments of the form NAME=FILE.

    Raises:
        BingoError: one has another form; ``option`` names it.
    """
    split = [pair.partition("=") for pair in pairs]
    for name, separator, path in split:
        if not (name and separator and path):
            raise BingoError(f"{option}: is NAME=FILE, found {name}{separator}{path}")
    return [(name, Path(path)) for name, _, path in split]


def unique_files(option: str, pairs: Iterable[str]) -> dict[str, Path]:
    """Split arguments of the form NAME=FILE, where a name stands for one file.

    Raises:
        BingoError: one has another form, or a name occurs twice; ``option`` names it.
    """
    files: dict[str, Path] = {}
    for name, path in named_files(option, pairs):
        if name in files:
            raise BingoError(f"{option}: {name} occurs twice; name each once")
        files[name] = path
    return files
