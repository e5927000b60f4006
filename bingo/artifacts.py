"""Files that later stages trust: written whole or not at all, carrying where they came from, checked when read."""

import fcntl
import hashlib
import io
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, BinaryIO

import h5py
import numpy as np

from bingo.errors import BingoError

# Fletcher's sum of zeros is zero, so a chunk of nothing but zeros would pass; as a stream of gzip, uncompressed, it
# does not.
CHECKED: dict[str, Any] = {"fletcher32": True, "compression": "gzip", "compression_opts": 0}
"""Options for a chunked dataset whose every chunk carries a checksum."""

_MAGIC = b"bingo trailer\n"

_PACKAGES = ("bingo-distillation", "faiss-gpu", "h5py", "numpy", "torch", "torchvision")


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
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
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


@contextmanager
def atomic_checked(path: Path) -> Iterator[Path]:
    """As `atomic`; leave the file's SHA-256 beside it, in `.<name>.sha256`, for `read_checked`.

    For what later stages read in formats that hold no checksum of their own: CSV, JSON, SVG, PNG.
    """
    with atomic(path) as temporary:
        yield temporary
        write_text(_checksum_path(path), hashlib.sha256(temporary.read_bytes()).hexdigest() + "\n")


def read_checked(path: Path) -> bytes:
    """Read what `atomic_checked` wrote; a file without a checksum beside it is taken as it is.

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


def provenance(
    stage: str, stage_version: int, settings: Mapping[str, Any], inputs: Mapping[str, str], **facts: Any
) -> dict[str, Any]:
    """Describe how an artifact came about. No dates: the same inputs give the same bytes.

    Args:
        stage: name of the stage, ``teacher`` say.
        stage_version: its STAGE_VERSION.
        settings: the part of the resolved study that the stage was given.
        inputs: name of each input and its digest.
        facts: whatever else describes the run (seed, device, precision, counts).
    """
    packages = {}
    for name in _PACKAGES:
        with suppress(PackageNotFoundError):
            packages[name] = version(name)
    return {
        "stage": stage,
        "version": stage_version,
        "settings": dict(settings),
        "inputs": dict(inputs),
        "packages": packages,
        **facts,
    }


def digest_json(value: Any) -> str:
    """Return the SHA-256 of a JSON value in canonical form (sorted keys)."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def digest_arrays(arrays: Mapping[str, np.ndarray]) -> str:
    """Return the SHA-256 over names, dtypes, shapes and bytes of arrays, independent of their order."""
    total = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        total.update(f"{name} {array.dtype.str} {array.shape};".encode())
        total.update(array.reshape(-1).view(np.uint8).data)
    return total.hexdigest()


class _Sink(io.FileIO):
    """A file that takes every write, and remembers the first that the disk refused.

    The HDF5 library ends the process with a segmentation fault when a write fails while it closes a file.
    """

    fault: OSError | None = None

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        size = len(view)
        try:
            while len(view) and self.fault is None:
                view = view[super().write(view) :]
        except OSError as error:
            self.fault = error
        return size

    def truncate(self, size: int | None = None) -> int:
        try:
            return super().truncate(size)
        except OSError as error:
            self.fault = self.fault or error
            return size or 0


@contextmanager
def write_hdf5(path: Path, attributes: Mapping[str, Any]) -> Iterator[h5py.File]:
    """Yield a new HDF5 file that becomes ``path`` when the block ends well.

    Attributes that are no strings or numbers are stored as JSON. Everything but the data of datasets is covered by
    a checksum after the end of what HDF5 reads; data must bring their own (`CHECKED`, or one for each image).
    """
    with atomic(path) as temporary, _Sink(temporary, "w+") as sink:
        with h5py.File(sink, "w", libver=("v110", "v110")) as file:
            for name, value in attributes.items():
                plain = isinstance(value, str | int | float)
                file.attrs[name] = value if plain else json.dumps(value, sort_keys=True)
            yield file
        if sink.fault is not None:
            raise sink.fault
        with h5py.File(sink, "r") as file:
            chunks = _chunks(file)
        end = sink.seek(0, os.SEEK_END)
        trailer = json.dumps({"end": end, "chunks": chunks, "sha256": _digest_around(sink, chunks, end)}).encode()
        sink.seek(end)
        sink.write(trailer + len(trailer).to_bytes(8) + _MAGIC)
        if sink.fault is not None:
            raise sink.fault


def _chunks(file: h5py.File) -> list[list[int]]:
    """Return where data of datasets lie, neighbours taken together: [start, end] in rising order."""
    spans: list[tuple[int, int]] = []

    def add(_: str, node: h5py.Dataset | h5py.Group) -> None:
        if not isinstance(node, h5py.Dataset):
            return
        if node.chunks is not None:
            node.id.chunk_iter(lambda chunk: spans.append((chunk.byte_offset, chunk.byte_offset + chunk.size)))
        elif (start := node.id.get_offset()) is not None:
            spans.append((start, start + node.id.get_storage_size()))

    file.visititems(add)
    merged: list[list[int]] = []
    for start, end in sorted(spans):
        if merged and merged[-1][1] == start:
            merged[-1][1] = end
        else:
            merged.append([start, end])
    return merged


def _digest_around(raw: BinaryIO | io.FileIO, chunks: list[list[int]], end: int) -> str:
    """Return the SHA-256 of the first ``end`` bytes of a file without its chunks."""
    total = hashlib.sha256()
    around = [0, *(edge for chunk in chunks for edge in chunk), end]
    if around != sorted(around):
        raise ValueError("its trailer is no trailer")
    for start, stop in zip(around[::2], around[1::2], strict=True):
        raw.seek(start)
        total.update(raw.read(stop - start))
    return total.hexdigest()


def _require_sound(path: Path) -> None:
    """Check what the trailer of `write_hdf5` covers; a file without one is another program's, and taken as it is.

    HDF5 has no checksum for text in attributes, and loops for ever where zeros stand in its place.

    Raises:
        ValueError: the file is damaged.
    """
    with path.open("rb") as raw:
        size = raw.seek(0, os.SEEK_END)
        raw.seek(max(size - 8 - len(_MAGIC), 0))
        tail = raw.read()
        if not tail.endswith(_MAGIC):
            raw.seek(0)
            head = raw.read(36)
            ends = int.from_bytes(head[28:], "little")  # as the superblock of version 2 and 3 says
            if head[8:9] in (b"\x02", b"\x03") and ends < size:
                raise ValueError("its end is missing")
            return
        length = int.from_bytes(tail[:8])
        try:
            raw.seek(size - len(tail) - length)
            trailer = json.loads(raw.read(length))
            sound = _digest_around(raw, trailer["chunks"], trailer["end"]) == trailer["sha256"]
        except (KeyError, TypeError, OverflowError) as error:
            raise ValueError("its trailer is no trailer") from error
        if not sound:
            raise ValueError("its checksum differs")


@contextmanager
def read_hdf5(path: Path, kind: str) -> Iterator[h5py.File]:
    """Open an artifact of the named kind (its ``kind`` attribute) for reading.

    Raises:
        BingoError: the file is missing, truncated, damaged, or of another kind; also when damage shows only
            while the block reads from it.
    """
    if not path.exists():
        raise BingoError(f"{path}: no such file")
    try:
        _require_sound(path)
        with h5py.File(path, "r") as file:
            found = file.attrs.get("kind")
            if found != kind:
                raise BingoError(f"{path}: holds {found or 'something unknown'}, but {kind} is needed here")
            yield file
    except (OSError, KeyError, ValueError) as error:
        raise BingoError(f"{path}: truncated or damaged HDF5 ({error}); delete it and run again") from error


def checked_dataset(file: h5py.File, name: str, data: np.ndarray, **options: Any) -> None:
    """Store ``data`` as a chunked dataset whose every chunk carries a checksum."""
    if data.size == 0:
        file.create_dataset(name, data=data)
        return
    options = {option: value for option, value in {"chunks": True, **options}.items() if value is not None}
    # Really compressed, it has a checksum too that zeros do not meet.
    checks = {"fletcher32": True} if "compression" in options else CHECKED
    file.create_dataset(name, data=data, **checks, **options)


def require_same(path: Path, what: str, found: str, expected: str, source: Path) -> None:
    """Refuse an artifact that was made from something else.

    Raises:
        BingoError: ``found`` is not ``expected``, the digest of ``source``.
    """
    if found != expected:
        raise BingoError(
            f"{path}: belongs to another {what} ({found[:12]}) than {source} ({expected[:12]}); delete it and run again"
        )
