"""Files written whole or not at all, and checked when they are read."""

import fcntl
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from bingo.errors import BingoError


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yield a temporary name beside ``path``; flush and rename it to ``path`` if the block ends well.

    Raises:
        BingoError: another process is writing it, or the file system refuses (disk full, no permission).
    """
    temporary = path.with_name(f".{path.name}.tmp{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("ab") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise BingoError(f"{path}: another process is writing it; wait for its end and run again") from error
            try:
                yield temporary
                os.fsync(file.fileno())
                temporary.replace(path)
            except BaseException:
                with suppress(OSError):
                    temporary.unlink(missing_ok=True)
                raise
    except OSError as error:
        raise BingoError(f"{path}: cannot be written ({error.strerror or error}); check space and rights") from error


def write_text(path: Path, text: str) -> None:
    """Write ``text`` to ``path`` atomically, in UTF-8."""
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


@contextmanager
def atomic_write_checked(path: Path) -> Iterator[Path]:
    """As `atomic`; leave the file's SHA-256 beside it, in `.<name>.sha256`, for `read_checked`.

    For what later stages read in formats that hold no checksum of their own: CSV, JSON, SVG, PNG.
    """
    with atomic_write(path) as temporary:
        yield temporary
        write_text(_checksum_path(path), hashlib.sha256(temporary.read_bytes()).hexdigest() + "\n")


def read_checked(path: Path) -> bytes:
    """Read what `atomic_write_checked` wrote; a file without a checksum beside it is taken as it is.

    Raises:
        BingoError: the file is missing, or not the one that was written there.
    """
    checksum = _checksum_path(path)
    try:
        content = path.read_bytes()
        expected = checksum.read_bytes().strip() if checksum.exists() else None
    except OSError as error:
        raise BingoError(f"{path}: cannot be read ({error.strerror})") from error
    if expected not in (None, hashlib.sha256(content).hexdigest().encode()):
        raise BingoError(f"{path}: not what was written there ({checksum.name} differs); delete it and run again")
    return content


def _checksum_path(path: Path) -> Path:
    return path.with_name(f".{path.name}.sha256")
