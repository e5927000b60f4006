"""Listings: which images there are, in which order, with which labels, and the digest of it all.

A listing is one HDF5 file with one group, `train` or `val`: `label` (N,) int64, -1 where unknown; `size` (N, 2)
int64, height and width in pixels; and either `index` (N,) int64, the position in a named set, or, for a folder, `path`
(N,) bytes, `bytes` (N,) int64 and `crc32` (N,) uint32. Its attribute `digest` covers the pixels' bytes, so equal
digests mean equal images. A pack is the listing of a folder that brings the images (`bingo.data.pack`).
"""

import json
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from bingo.artifacts.hdf5 import checked_dataset, read_hdf5
from bingo.artifacts.provenance import digest_arrays
from bingo.data.arrays import class_names, load_arrays
from bingo.data.blocks import locate
from bingo.data.decode import SUFFIXES, BadImageError
from bingo.data.folder import class_of, decode_files, held_out, is_image, walk
from bingo.errors import BingoError
from bingo.philox import Stream, permutation
from bingo.study.facts import NAMED_SETS, class_folders, has_labels
from bingo.study.images import FolderSet, ImageSet, TorchvisionSet

log = logging.getLogger(__name__)

_COLUMNS = {"label": "label", "size": "size", "index": "index", "path": "paths", "bytes": "nbytes", "crc32": "crc32"}
"""Datasets of a listing, and the fields that they are read into."""
_ATTRIBUTES = ("root", "classes", "source_digest", "digest")
_IN_FILES, _IN_ARRAYS = {"label", "size", "path", "bytes", "crc32"}, {"label", "size", "index"}
_SOURCES = {"folder", "pack", *NAMED_SETS}
_CHUNK = 2**16
"""Rows of a dataset's chunk: a million of them are read in few steps."""


@dataclass(frozen=True)
class Listing:
    """One split of a dataset: N images, told apart by their position 0 .. N-1.

    Columns are plain arrays, which forked loader workers share: Python objects would be copied by being looked at.
    """

    source: str
    root: Path
    """Folder of the images, or the pack that holds them."""
    split: str
    label: NDArray[np.int64]
    size: NDArray[np.int64]
    classes: list[str]
    source_digest: str
    """Digest of everything that lies at the source."""
    digest: str
    """Digest of the images listed here; differs from `source_digest` where a subset was drawn."""
    index: NDArray[np.int64] | None = None
    paths: NDArray[np.bytes_] | None = None
    """(N,) relative to the folder, in the file system's encoding."""
    nbytes: NDArray[np.int64] | None = None
    crc32: NDArray[np.uint32] | None = None
    """(N,) zlib.crc32 of each file's bytes."""
    offset: NDArray[np.int64] | None = None
    """(N,) where in the pack each image begins."""

    def __len__(self) -> int:
        """Return N."""
        return len(self.label)

    @property
    def labelled(self) -> bool:
        """Whether any image has a label."""
        return bool((self.label >= 0).any())

    def path(self, i: int) -> Path:
        """Return the file of image ``i``; of a pack's image, the pack and its name there."""
        assert self.paths is not None
        return self.root / os.fsdecode(self.paths[i])

    def select(self, rows: NDArray[np.int64]) -> "Listing":
        """Return the listing of the images at ``rows`` alone."""
        columns = {name: getattr(self, name) for name in (*_COLUMNS.values(), "offset")}
        taken: dict[str, Any] = {name: None if values is None else values[rows] for name, values in columns.items()}
        digest = digest_arrays({"source": np.array([self.digest], dtype="S64"), "rows": rows})
        return replace(self, **taken, digest=digest)


def read_listing(path: Path, split: str) -> Listing:
    """Read one split of a listing.

    Raises:
        BingoError: the file is missing, damaged, or lists another split.
    """
    with read_hdf5(path, "listing") as file:
        if not isinstance(file.get(split), h5py.Group):
            raise BingoError(f"{path}: lists the {' '.join(file)} images, but the {split} ones are needed here")
        group, source = file[split], file.attrs["source"]
        columns = {name: group[name][:] for name in _COLUMNS if isinstance(group.get(name), h5py.Dataset)}
        attributes = {name: group.attrs[name] for name in _ATTRIBUTES}
        if fault := _fault(source, columns, attributes):
            raise BingoError(f"{path}: is no sound listing ({fault}); delete it and run again")
        return Listing(
            source=source,
            root=path if source == "pack" else Path(attributes["root"]),
            split=split,
            classes=json.loads(attributes["classes"]),
            source_digest=attributes["source_digest"],
            digest=attributes["digest"],
            offset=locate(group, columns["bytes"]) if source == "pack" else None,
            **{_COLUMNS[name]: values for name, values in columns.items()},
        )


def _fault(source: Any, columns: Mapping[str, np.ndarray], attributes: Mapping[str, Any]) -> str | None:
    """Return what is wrong with what a listing holds, None if nothing."""
    if not isinstance(source, str) or source not in _SOURCES:
        return "its source is unknown"
    needed = _IN_FILES if source in ("folder", "pack") else _IN_ARRAYS
    if set(columns) != needed:
        return f"it does not hold {', '.join(sorted(needed))}"
    count = len(columns["label"])
    for name, values in columns.items():
        shape = (count, 2) if name == "size" else (count,)
        kind = {"path": "S", "crc32": "u4"}.get(name, "i8")
        if values.shape != shape or count == 0 or kind not in (values.dtype.kind, values.dtype.str[1:]):
            return f"{name} has shape {values.shape} and type {values.dtype}"
    if not all(isinstance(value, str) for value in attributes.values()):
        return "an attribute is no text"
    classes = json.loads(attributes["classes"])
    if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
        return "its classes are no names"
    least = {"label": -1, "size": 1, "index": 0, "bytes": 1}
    for name in sorted(set(least) & set(columns)):
        if columns[name].min() < least[name]:
            return f"{name} is {columns[name].min()} somewhere"
    if columns["label"].max() >= len(classes):
        return f"label is {columns['label'].max()} somewhere, of {len(classes)} classes"
    return None


def list_split(data: ImageSet, split: str, key: str, classes: list[str] | None, threads: int) -> tuple[Listing, int]:
    """Return a split's listing and the number of unreadable images left out; decode each file of a folder once.

    Args:
        data: the set.
        split: `train` or `val`.
        key: key of the study that describes the images, for messages.
        classes: those of the training images, None to find them.
        threads: decoders at work.

    Raises:
        BingoError: a folder is not named, missing or empty, an image cannot be decoded (`on_bad_image: fail`), or
            a validation class is unknown in training.
    """
    if isinstance(data, FolderSet):
        listing, bad = _list_folder(data, key, split, classes, threads)
    else:
        root = Path(data.root) if isinstance(data, TorchvisionSet) else Path()
        listing, bad = _list_arrays(data.source, root, split), 0
    limit = data.max_train if split == "train" else data.max_val
    if limit is not None and limit < len(listing):
        listing = listing.select(np.sort(permutation(0, Stream.SUBSET, 0, len(listing))[:limit]))
    return listing, bad


def _list_arrays(source: str, root: Path, split: str) -> Listing:
    images, labels = load_arrays(source, root, split)
    count, height, width, _ = images.shape
    return Listing(
        source=source,
        root=root,
        split=split,
        label=labels,
        size=np.full((count, 2), (height, width), dtype=np.int64),
        classes=class_names(source, int(labels.max()) + 1),
        index=np.arange(count),
        source_digest=(digest := digest_arrays({"image": images, "label": labels})),
        digest=digest,
    )


def _list_folder(
    data: FolderSet, section: str, split: str, classes: list[str] | None, threads: int
) -> tuple[Listing, int]:
    key = f"{section}.{split}"
    folder = data.train if split == "train" else data.val
    if folder is None and data.held_out is not None:
        key, folder = f"{section}.train", data.train
    if folder is None:
        raise BingoError(f"{key}: this study has no validation images; name their folder")
    root = Path(folder)
    class_folders(root, key)  # refuses a missing or empty folder
    names, others = [], 0
    for name in walk(root):
        if is_image(name):
            names.append(name)
        else:
            others += 1
    if not names:
        raise BingoError(f"{key}: {root} holds no image ({', '.join(sorted(SUFFIXES))})")
    if others:
        log.info("%s: %d files in %s are no images by their names", split, others, root)
    labelled = has_labels(data, section)
    if labelled and (stray := next((name for name in names if "/" not in name), None)):
        raise BingoError(f"{key}: {root / stray} lies in no class folder; move it, or set {section}.labels: none")
    if classes is None:
        classes = sorted({class_of(name) for name in names}) if labelled else []
    class_index = {name: i for i, name in enumerate(classes)}
    if labelled and (stray := next((name for name in names if class_of(name) not in class_index), None)):
        raise BingoError(f"{key}: {root / class_of(stray)} is no class folder of the training images")

    if data.held_out is not None:
        drawn = held_out(names, data.held_out)
        names = [name for name in names if (name in drawn) == (split == "val")]
        if not names:
            raise BingoError(f"{section}.held_out: no class in {root} has two images; leave it out")

    count = len(names)
    kept = np.zeros(count, dtype=bool)
    size, nbytes = np.zeros((count, 2), dtype=np.int64), np.zeros(count, dtype=np.int64)
    crc32, hashes = np.zeros(count, dtype=np.uint32), np.zeros(count, dtype="S64")
    for i, found in enumerate(decode_files(root, names, threads, split)):
        if isinstance(found, BadImageError):
            path = root / names[i]
            if data.on_bad_image == "fail":
                raise BingoError(
                    f"{key}: {path} cannot be read ({found}); repair or remove it, or set {section}.on_bad_image: skip"
                )
            log.warning("%s: %s cannot be read (%s); left out", split, path, found)
            continue
        kept[i], size[i], nbytes[i] = True, (found.height, found.width), found.nbytes
        crc32[i], hashes[i] = found.crc32, found.sha256
    if not kept.any():
        raise BingoError(f"{key}: none of the {count} images in {root} can be read")
    label = np.array([class_index.get(class_of(name), -1) for name in names], dtype=np.int64)[kept]
    digest = digest_arrays({"label": label, "hash": hashes[kept]})
    listing = Listing(
        source="folder",
        root=root,
        split=split,
        label=label,
        size=size[kept],
        classes=classes,
        source_digest=digest,
        digest=digest,
        # Bytes, because names need not be UTF-8.
        paths=np.array([os.fsencode(name) for name in names])[kept],
        nbytes=nbytes[kept],
        crc32=crc32[kept],
    )
    return listing, count - len(listing)


def store(group: h5py.Group, listing: Listing) -> None:
    """Write a listing into a group of an HDF5 file."""
    for name, field in _COLUMNS.items():
        if (values := getattr(listing, field)) is not None:
            chunks = (min(len(values), _CHUNK), *values.shape[1:])
            options = {"compression": "gzip", "compression_opts": 4} if name == "path" else {}
            checked_dataset(group, name, values, chunks=chunks, **options)
    group.attrs["root"] = str(listing.root)
    group.attrs["classes"] = json.dumps(listing.classes)
    group.attrs["source_digest"] = listing.source_digest
    group.attrs["digest"] = listing.digest
