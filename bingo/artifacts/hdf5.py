"""HDF5 files that are checked when they are read."""

import hashlib
import io
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import h5py
import numpy as np

from bingo.artifacts.files import atomic_write
from bingo.errors import BingoError

# Fletcher's sum of zeros is zero, so a chunk of nothing but zeros would pass; as a stream of gzip, uncompressed, it
# does not.
CHECKED: dict[str, Any] = {"fletcher32": True, "compression": "gzip", "compression_opts": 0}
"""Options for a chunked dataset whose every chunk carries a checksum."""
_MAGIC = b"bingo trailer\n"


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
    with atomic_write(path) as temporary, _Sink(temporary, "w+") as sink:
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
