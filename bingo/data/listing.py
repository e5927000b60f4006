"""The data stage: which images there are, in which order, with which labels, and the digest of it all.

A listing is one HDF5 file with one group, `train` or `val`: `label` (N,) int64, -1 where unknown; `size` (N, 2)
int64, height and width in pixels; and either `index` (N,) int64, the position in a named set, or, for a folder, `path`
(N,) and `bytes` (N,) int64. Its attribute `digest` covers the pixels' bytes, so equal digests mean equal images.
"""

import hashlib
import json
import logging
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from bingo.artifacts import checked_dataset, digest_arrays, provenance, read_hdf5, write_hdf5
from bingo.config import FolderSet
from bingo.data.arrays import class_names, load_arrays
from bingo.data.decode import SUFFIXES, BadImageError, decode
from bingo.data.sources import class_folders, has_labels
from bingo.errors import BingoError
from bingo.jobs import NOT_LISTED, DataJob
from bingo.philox import Stream, permutation
from bingo.progress import Progress

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Listing:
    """One split of a dataset: N images, told apart by their position 0 .. N-1."""

    source: str
    root: Path
    split: str
    label: NDArray[np.int64]
    size: NDArray[np.int64]
    index: NDArray[np.int64] | None
    paths: NDArray[np.object_] | None
    nbytes: NDArray[np.int64] | None
    classes: list[str]
    source_digest: str
    """Digest of everything that lies at the source."""
    digest: str
    """Digest of the images listed here; differs from `source_digest` where a subset was drawn."""

    def __len__(self) -> int:
        """Return N."""
        return len(self.label)

    @property
    def labelled(self) -> bool:
        """Whether any image has a label."""
        return bool((self.label >= 0).any())

    def select(self, rows: NDArray[np.int64]) -> "Listing":
        """Return the listing of the images at ``rows`` alone."""

        def take(values: Any) -> Any:
            return None if values is None else values[rows]

        return replace(
            self,
            label=self.label[rows],
            size=self.size[rows],
            index=take(self.index),
            paths=take(self.paths),
            nbytes=take(self.nbytes),
            digest=digest_arrays({"source": np.array([self.digest], dtype="S64"), "rows": rows}),
        )


def write_listing(job: DataJob, key: str, train_listing: Path | None, output: Path, threads: int) -> None:
    """List the images of one split of a study; decode each file of a folder once to prove it sound.

    Args:
        job: the stage's settings.
        key: key of the study that describes the images, for messages.
        train_listing: listing of the training images, whose classes validation images have.
        output: HDF5 file to write.
        threads: decoders at work.

    Raises:
        BingoError: a folder is not named, missing or empty, an image cannot be decoded (`on_bad_image: fail`), or
            a validation class is unknown in training.
    """
    inputs, classes = {}, None
    if job.split == "val":
        if train_listing is None:
            raise BingoError("data: validation images need --train-listing, whose classes they have")
        train = read_listing(train_listing, "train")
        inputs, classes = {"train": train.digest}, train.classes
    listing, bad = _list_split(job, key, classes, threads)
    settings = job.model_dump(mode="json", exclude=NOT_LISTED[job.split])
    attributes = {
        "kind": "listing",
        "source": job.data.source,
        "provenance": provenance("data", job.version, settings, inputs, images=len(listing), unreadable=bad),
    }
    with write_hdf5(output, attributes) as file:
        _store(file.create_group(job.split), listing)
    log.info("%s: %d images, %d unreadable left out", job.split, len(listing), bad)


def read_listing(path: Path, split: str) -> Listing:
    """Read one split of a listing.

    Raises:
        BingoError: the file is missing, damaged, or lists another split.
    """
    with read_hdf5(path, "listing") as file:
        if split not in file:
            raise BingoError(f"{path}: lists the {' '.join(file)} images, but the {split} ones are needed here")
        group = file[split]
        return Listing(
            source=file.attrs["source"],
            root=Path(group.attrs["root"]),
            split=split,
            label=group["label"][:],
            size=group["size"][:],
            index=group["index"][:] if "index" in group else None,
            paths=np.array([os.fsdecode(path) for path in group["path"][:]], object) if "path" in group else None,
            nbytes=group["bytes"][:] if "bytes" in group else None,
            classes=json.loads(group.attrs["classes"]),
            source_digest=group.attrs["source_digest"],
            digest=group.attrs["digest"],
        )


def _list_split(job: DataJob, key: str, classes: list[str] | None, threads: int) -> tuple[Listing, int]:
    """Return a split's listing and the number of unreadable images left out; `classes` None means: find them."""
    data, split = job.data, job.split
    if isinstance(data, FolderSet):
        listing, bad = _list_folder(data, key, split, classes, threads)
    else:
        listing, bad = _list_arrays(data.source, Path(getattr(data, "root", ".")), split), 0
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
        index=np.arange(count),
        paths=None,
        nbytes=None,
        classes=class_names(source, int(labels.max()) + 1),
        source_digest=(digest := digest_arrays({"image": images, "label": labels})),
        digest=digest,
    )


def _list_folder(
    data: FolderSet, section: str, split: str, classes: list[str] | None, threads: int
) -> tuple[Listing, int]:
    key = f"{section}.{split}"
    folder = data.train if split == "train" else data.val
    if folder is None:
        raise BingoError(f"{key}: this study has no validation images; name their folder")
    root = Path(folder)
    class_folders(root, key)  # refuses a missing or empty folder
    files = sorted(_walk(root))
    images = [path for path in files if path.suffix.lower() in SUFFIXES and not path.name.startswith(".")]
    if not images:
        raise BingoError(f"{key}: {root} holds no image ({', '.join(sorted(SUFFIXES))})")
    if len(images) < len(files):
        log.info("%s: %d files in %s are no images by their names", split, len(files) - len(images), root)
    labelled = has_labels(data, section)
    if labelled and (stray := next((path for path in images if len(path.parts) == 1), None)):
        raise BingoError(f"{key}: {root / stray} lies in no class folder; move it, or set {section}.labels: none")
    if classes is None:
        classes = sorted({path.parts[0] for path in images}) if labelled else []
    class_index = {name: i for i, name in enumerate(classes)}
    if labelled and (stray := next((path for path in images if path.parts[0] not in class_index), None)):
        raise BingoError(f"{key}: {root / stray.parts[0]} is no class folder of the training images")

    kept, sizes, nbytes, hashes, bad = [], [], [], [], 0
    for path, found in zip(images, _examine(root, images, threads, split), strict=True):
        if isinstance(found, BadImageError):
            if data.on_bad_image == "fail":
                raise BingoError(
                    f"{key}: {root / path} cannot be read ({found}); repair or remove it, "
                    f"or set {section}.on_bad_image: skip"
                )
            log.warning("%s: %s cannot be read (%s); left out", split, root / path, found)
            bad += 1
            continue
        height, width, length, content_hash = found
        kept.append(path)
        sizes.append((height, width))
        nbytes.append(length)
        hashes.append(content_hash)
    if not kept:
        raise BingoError(f"{key}: none of the {len(images)} images in {root} can be read")
    label = [class_index.get(path.parts[0], -1) for path in kept]
    content = {
        "label": np.array(label, dtype=np.int64),
        "hash": np.array(hashes, dtype="S64"),
    }
    listing = Listing(
        source="folder",
        root=root,
        split=split,
        label=content["label"],
        size=np.array(sizes, dtype=np.int64),
        index=None,
        paths=np.array([str(path) for path in kept], dtype=object),
        nbytes=np.array(nbytes, dtype=np.int64),
        classes=classes,
        source_digest=(digest := digest_arrays(content)),
        digest=digest,
    )
    return listing, bad


def _walk(root: Path) -> Iterator[Path]:
    """Yield every file below ``root``, relative to it, through links too: class folders often are links.

    Hidden folders are passed over, as hidden files are: tools keep thumbnails and old versions there.
    """
    for folder, inner, names in os.walk(root, followlinks=True, onerror=_refuse):
        inner[:] = [name for name in inner if not name.startswith(".")]
        for link in (Path(folder, name) for name in inner if Path(folder, name).is_symlink()):
            if link.resolve() in {parent.resolve() for parent in link.parents}:
                raise BingoError(f"{link}: links to a folder around it; remove the link")
        for name in names:
            yield Path(folder, name).relative_to(root)


def _refuse(error: OSError) -> None:
    """Stop at a folder that cannot be entered; a walk would pass over it in silence."""
    raise BingoError(f"{error.filename}: cannot be read ({error.strerror}); repair or remove it") from error


Examined = tuple[int, int, int, str]


def _examine(root: Path, paths: list[Path], threads: int, title: str) -> Iterator[Examined | BadImageError]:
    """Yield (height, width, bytes, SHA-256) of each file, in order, or why it cannot be decoded."""

    def examine(path: Path) -> Examined | BadImageError:
        try:
            content = (root / path).read_bytes()
            _, height, width = decode(content).shape
        except OSError as error:
            return BadImageError(error.strerror or str(error))
        except BadImageError as error:
            return error
        return height, width, len(content), hashlib.sha256(content).hexdigest()

    with ThreadPoolExecutor(threads) as pool, Progress(f"{title} images", len(paths), "images") as progress:
        # In portions, because the pool would else hold a task for every file of the folder.
        for start in range(0, len(paths), 1024):
            for found in pool.map(examine, paths[start : start + 1024]):
                yield found
                progress.advance(1)


def _store(group: h5py.Group, listing: Listing) -> None:
    checked_dataset(group, "label", listing.label)
    checked_dataset(group, "size", listing.size)
    if listing.index is not None:
        checked_dataset(group, "index", listing.index)
    if listing.paths is not None and listing.nbytes is not None:
        # Bytes of fixed width: names need not be UTF-8, and HDF5 has no checksum for strings of any length.
        checked_dataset(group, "path", np.array([os.fsencode(p) for p in listing.paths]), compression="gzip")
        checked_dataset(group, "bytes", listing.nbytes)
    group.attrs["root"] = str(listing.root)
    group.attrs["classes"] = json.dumps(listing.classes)
    group.attrs["source_digest"] = listing.source_digest
    group.attrs["digest"] = listing.digest
