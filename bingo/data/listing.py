"""Listings: the images of a split in a fixed order, with labels and a digest.

A listing is an HDF5 file with one group, `train` or `val`. The group contains:

- `label` (N,) int64, -1 where unknown;
- `size` (N, 2) int64, height and width in pixels;
- for a named dataset, `index` (N,) int64, the position in the dataset;
- for a folder, `path` (N,) bytes, `bytes` (N,) int64 and `crc32` (N,) uint32.

The attribute `digest` covers the images' bytes: equal digests mean equal images. A pack is the listing of a folder
together with its images (`bingo.data.pack`).
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
"""HDF5 dataset to field of `Listing`."""
_ATTRIBUTES = ("root", "classes", "source_digest", "digest")
_IN_FILES, _IN_ARRAYS = {"label", "size", "path", "bytes", "crc32"}, {"label", "size", "index"}
_SOURCES = {"folder", "pack", *NAMED_SETS}
_CHUNK = 2**16
"""Rows per HDF5 chunk; large enough to read a million rows quickly."""


@dataclass(frozen=True)
class Listing:
    """One split of a dataset: N images, identified by their position 0 to N - 1.

    Columns are NumPy arrays, so that forked loader workers share their memory. Python objects would be copied on
    access, because reading them changes their reference counts.
    """

    source: str
    root: Path
    """Folder of the images, or the pack file."""
    split: str
    label: NDArray[np.int64]
    size: NDArray[np.int64]
    classes: list[str]
    source_digest: str
    """Digest of the complete split at the source."""
    digest: str
    """Digest of the listed images; differs from `source_digest` for a subset."""
    index: NDArray[np.int64] | None = None
    paths: NDArray[np.bytes_] | None = None
    """(N,) paths relative to the folder, in the file system's encoding."""
    nbytes: NDArray[np.int64] | None = None
    crc32: NDArray[np.uint32] | None = None
    """(N,) `zlib.crc32` of each file."""
    offset: NDArray[np.int64] | None = None
    """(N,) offset of each image in the pack, in bytes."""

    def __len__(self) -> int:
        """Return N."""
        return len(self.label)

    @property
    def labelled(self) -> bool:
        """Whether any image has a label."""
        return bool((self.label >= 0).any())

    def path(self, i: int) -> Path:
        """Return the path of image ``i``; for a pack, the pack's path followed by the name in the pack."""
        assert self.paths is not None
        return self.root / os.fsdecode(self.paths[i])

    def select(self, rows: NDArray[np.int64]) -> "Listing":
        """Return the listing of the images at ``rows``."""
        columns = {name: getattr(self, name) for name in (*_COLUMNS.values(), "offset")}
        subset: dict[str, Any] = {name: None if values is None else values[rows] for name, values in columns.items()}
        digest = digest_arrays({"source": np.array([self.digest], dtype="S64"), "rows": rows})
        return replace(self, **subset, digest=digest)


def read_listing(path: Path, split: str) -> Listing:
    """Read one split of a listing.

    Raises:
        BingoError: the file does not exist, is damaged, or lists another split.
    """
    with read_hdf5(path, "listing") as file:
        if not isinstance(file.get(split), h5py.Group):
            raise BingoError(f"{path}: lists the {' '.join(file)} images, but the {split} images are needed here")
        group, source = file[split], file.attrs["source"]
        columns = {name: group[name][:] for name in _COLUMNS if isinstance(group.get(name), h5py.Dataset)}
        attributes = {name: group.attrs[name] for name in _ATTRIBUTES}
        if problem := _find_problem(source, columns, attributes):
            raise BingoError(f"{path}: is not a valid listing ({problem}); delete it and run again")
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


def _find_problem(source: Any, columns: Mapping[str, np.ndarray], attributes: Mapping[str, Any]) -> str | None:
    """Return why the contents of a listing are invalid, or None if they are valid."""
    if not isinstance(source, str) or source not in _SOURCES:
        return "unknown source"
    required = _IN_FILES if source in ("folder", "pack") else _IN_ARRAYS
    if set(columns) != required:
        return f"datasets must be {', '.join(sorted(required))}"
    count = len(columns["label"])
    for name, values in columns.items():
        shape = (count, 2) if name == "size" else (count,)
        kind = {"path": "S", "crc32": "u4"}.get(name, "i8")
        if values.shape != shape or count == 0 or kind not in (values.dtype.kind, values.dtype.str[1:]):
            return f"{name} has shape {values.shape} and type {values.dtype}"
    if not all(isinstance(value, str) for value in attributes.values()):
        return "an attribute is not a string"
    classes = json.loads(attributes["classes"])
    if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
        return "classes must be a list of strings"
    minimum = {"label": -1, "size": 1, "index": 0, "bytes": 1}
    for name in sorted(set(minimum) & set(columns)):
        if columns[name].min() < minimum[name]:
            return f"{name} contains {columns[name].min()}"
    if columns["label"].max() >= len(classes):
        return f"label contains {columns['label'].max()}, but there are {len(classes)} classes"
    return None


def list_split(data: ImageSet, split: str, key: str, classes: list[str] | None, threads: int) -> tuple[Listing, int]:
    """Return a split's listing and the number of skipped unreadable images. Decodes each file of a folder once.

    Args:
        data: the dataset.
        split: `train` or `val`.
        key: key of the dataset in the study, for error messages.
        classes: class names of the training images; None to find them.
        threads: number of decoding threads.

    Raises:
        BingoError: a folder is not set, does not exist or is empty; an image cannot be decoded
            (`on_bad_image: fail`); or a validation class is not a training class.
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
        raise BingoError(f"{key}: this study has no validation images; set {key} to their folder")
    root = Path(folder)
    class_folders(root, key)  # raises if the folder is missing or empty
    names, others = [], 0
    for name in walk(root):
        if is_image(name):
            names.append(name)
        else:
            others += 1
    if not names:
        raise BingoError(f"{key}: {root} contains no image ({', '.join(sorted(SUFFIXES))})")
    if others:
        log.info("%s: ignoring %d files in %s without an image suffix", split, others, root)
    labelled = has_labels(data, section)
    if labelled and (stray := next((name for name in names if "/" not in name), None)):
        raise BingoError(f"{key}: {root / stray} is not in a class folder; move it, or set {section}.labels: none")
    if classes is None:
        classes = sorted({class_of(name) for name in names}) if labelled else []
    class_index = {name: i for i, name in enumerate(classes)}
    if labelled and (stray := next((name for name in names if class_of(name) not in class_index), None)):
        raise BingoError(
            f"{key}: {root / class_of(stray)} is not a class of the training images; rename or remove the folder"
        )

    if data.held_out is not None:
        validation = held_out(names, data.held_out)
        names = [name for name in names if (name in validation) == (split == "val")]
        if not names:
            raise BingoError(f"{section}.held_out: no class in {root} has two images; leave it out")

    count = len(names)
    valid = np.zeros(count, dtype=bool)
    size, nbytes = np.zeros((count, 2), dtype=np.int64), np.zeros(count, dtype=np.int64)
    crc32, hashes = np.zeros(count, dtype=np.uint32), np.zeros(count, dtype="S64")
    for i, entry in enumerate(decode_files(root, names, threads, split)):
        if isinstance(entry, BadImageError):
            path = root / names[i]
            if data.on_bad_image == "fail":
                raise BingoError(
                    f"{key}: {path} cannot be read ({entry}); repair or remove it, or set {section}.on_bad_image: skip"
                )
            log.warning("%s: %s cannot be read (%s); skipping it", split, path, entry)
            continue
        valid[i], size[i], nbytes[i] = True, (entry.height, entry.width), entry.nbytes
        crc32[i], hashes[i] = entry.crc32, entry.sha256
    if not valid.any():
        raise BingoError(f"{key}: none of the {count} images in {root} can be read; repair or replace them")
    label = np.array([class_index.get(class_of(name), -1) for name in names], dtype=np.int64)[valid]
    digest = digest_arrays({"label": label, "hash": hashes[valid]})
    listing = Listing(
        source="folder",
        root=root,
        split=split,
        label=label,
        size=size[valid],
        classes=classes,
        source_digest=digest,
        digest=digest,
        # Bytes, because file names may not be UTF-8.
        paths=np.array([os.fsencode(name) for name in names])[valid],
        nbytes=nbytes[valid],
        crc32=crc32[valid],
    )
    return listing, count - len(listing)


def store(group: h5py.Group, listing: Listing) -> None:
    """Write a listing into an HDF5 group."""
    for name, field in _COLUMNS.items():
        if (values := getattr(listing, field)) is not None:
            chunks = (min(len(values), _CHUNK), *values.shape[1:])
            options = {"compression": "gzip", "compression_opts": 4} if name == "path" else {}
            checked_dataset(group, name, values, chunks=chunks, **options)
    group.attrs["root"] = str(listing.root)
    group.attrs["classes"] = json.dumps(listing.classes)
    group.attrs["source_digest"] = listing.source_digest
    group.attrs["digest"] = listing.digest
