"""Atomic writes, and reads that verify a checksum."""

import fcntl
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from bingo.errors import BingoError


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yield a temporary path next to ``path``; on success, flush it to disk and rename it to ``path``.

    Raises:
        BingoError: another process is writing the file, or the file system refuses (disk full, no permission).
    """
    temporary = path.with_name(f".{path.name}.tmp{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("ab") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise BingoError(f"{path}: another process is writing it; wait until it ends and run again") from error
            try:
                yield temporary
                os.fsync(file.fileno())
                temporary.replace(path)
            except BaseException:
                with suppress(OSError):
                    temporary.unlink(missing_ok=True)
                raise
    except OSError as error:
        raise BingoError(
            f"{path}: cannot be written ({error.strerror or error}); check space and permissions"
        ) from error


def write_text(path: Path, text: str) -> None:
    """Write ``text`` to ``path`` atomically, in UTF-8."""
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


@contextmanager
def atomic_write_checked(path: Path) -> Iterator[Path]:
    """Like `atomic_write`, and store the file's SHA-256 in `.<name>.sha256` for `read_checked`.

    For formats that have no checksum: CSV, JSON, SVG, PNG.
    """
    with atomic_write(path) as temporary:
        yield temporary
        write_text(_checksum_path(path), hashlib.sha256(temporary.read_bytes()).hexdigest() + "\n")


def read_checked(path: Path) -> bytes:
    """Read a file written by `atomic_write_checked`. A file without a checksum file is read unchecked.

    Raises:
        BingoError: the file does not exist, or does not match its checksum.
    """
    checksum = _checksum_path(path)
    try:
        content = path.read_bytes()
        expected = checksum.read_bytes().strip() if checksum.exists() else None
    except OSError as error:
        raise BingoError(f"{path}: cannot be read ({error.strerror})") from error
    if expected not in (None, hashlib.sha256(content).hexdigest().encode()):
        raise BingoError(f"{path}: is damaged (does not match {checksum.name}); delete it and run again")
    return content


def _checksum_path(path: Path) -> Path:
    return path.with_name(f".{path.name}.sha256")
