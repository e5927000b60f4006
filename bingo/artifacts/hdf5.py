"""HDF5 files with checksums, verified when they are read."""

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

# The Fletcher checksum of zeros is zero, so a chunk overwritten with zeros would pass. It fails as a gzip stream, even
# at compression level 0.
CHECKED: dict[str, Any] = {"fletcher32": True, "compression": "gzip", "compression_opts": 0}
"""Dataset options that give every chunk a checksum."""
_MAGIC = b"bingo trailer\n"


class _Sink(io.FileIO):
    """A file that stores the first write error instead of raising it.

    The HDF5 library segfaults when a write fails while it closes a file.
    """

    error: OSError | None = None

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        size = len(view)
        try:
            while len(view) and self.error is None:
                view = view[super().write(view) :]
        except OSError as error:
            self.error = error
        return size

    def truncate(self, size: int | None = None) -> int:
        try:
            return super().truncate(size)
        except OSError as error:
            self.error = self.error or error
            return size or 0


@contextmanager
def write_hdf5(path: Path, attributes: Mapping[str, Any]) -> Iterator[h5py.File]:
    """Yield a new HDF5 file that replaces ``path`` on success.

    Attributes other than strings and numbers are stored as JSON. A trailer after the HDF5 content holds a checksum of
    everything except the datasets' data. The data need their own checksums: `CHECKED`, or one per image.
    """
    with atomic_write(path) as temporary, _Sink(temporary, "w+") as sink:
        with h5py.File(sink, "w", libver=("v110", "v110")) as file:
            for name, value in attributes.items():
                plain = isinstance(value, str | int | float)
                file.attrs[name] = value if plain else json.dumps(value, sort_keys=True)
            yield file
        if sink.error is not None:
            raise sink.error
        with h5py.File(sink, "r") as file:
            chunks = _data_spans(file)
        end = sink.seek(0, os.SEEK_END)
        trailer = json.dumps({"end": end, "chunks": chunks, "sha256": _digest_around(sink, chunks, end)}).encode()
        sink.seek(end)
        sink.write(trailer + len(trailer).to_bytes(8) + _MAGIC)
        if sink.error is not None:
            raise sink.error


def _data_spans(file: h5py.File) -> list[list[int]]:
    """Return the byte ranges [start, end] that hold the datasets' data, sorted, with adjacent ranges merged."""
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
    """Return the SHA-256 of the first ``end`` bytes of a file, skipping ``chunks``."""
    total = hashlib.sha256()
    edges = [0, *(edge for chunk in chunks for edge in chunk), end]
    if edges != sorted(edges):
        raise ValueError("invalid trailer")
    for start, stop in zip(edges[::2], edges[1::2], strict=True):
        raw.seek(start)
        total.update(raw.read(stop - start))
    return total.hexdigest()


def _require_sound(path: Path) -> None:
    """Verify the trailer's checksum. A file without a trailer comes from another program and is not verified.

    HDF5 has no checksum for strings in attributes, and loops forever if they are overwritten with zeros.

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
            end_of_file = int.from_bytes(head[28:], "little")  # in superblocks of versions 2 and 3
            if head[8:9] in (b"\x02", b"\x03") and end_of_file < size:
                raise ValueError("its trailer is cut off")
            return
        length = int.from_bytes(tail[:8])
        try:
            raw.seek(size - len(tail) - length)
            trailer = json.loads(raw.read(length))
            intact = _digest_around(raw, trailer["chunks"], trailer["end"]) == trailer["sha256"]
        except (KeyError, TypeError, OverflowError) as error:
            raise ValueError("invalid trailer") from error
        if not intact:
            raise ValueError("wrong checksum")


@contextmanager
def read_hdf5(path: Path, kind: str) -> Iterator[h5py.File]:
    """Open an artifact for reading and check its ``kind`` attribute.

    Raises:
        BingoError: the file does not exist, is truncated or damaged, or is of another kind. Damage may show only
            later, while the block reads from the file.
    """
    if not path.exists():
        raise BingoError(f"{path}: no such file")
    try:
        _require_sound(path)
        with h5py.File(path, "r") as file:
            actual = file.attrs.get("kind")
            if actual != kind:
                raise BingoError(f"{path}: holds {actual or 'an unknown artifact'}, but {kind} is needed here")
            yield file
    except (OSError, KeyError, ValueError) as error:
        raise BingoError(f"{path}: truncated or damaged HDF5 ({error}); delete it and run again") from error


def checked_dataset(file: h5py.File, name: str, data: np.ndarray, **options: Any) -> None:
    """Store ``data`` as a chunked dataset with a checksum for every chunk."""
    if data.size == 0:
        file.create_dataset(name, data=data)
        return
    options = {option: value for option, value in {"chunks": True, **options}.items() if value is not None}
    # Real compression also detects chunks that became zeros.
    checks = {"fletcher32": True} if "compression" in options else CHECKED
    file.create_dataset(name, data=data, **checks, **options)
