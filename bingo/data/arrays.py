"""Datasets that fit into memory as one array of images of equal size."""

import gzip
import hashlib
import zlib
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from bingo.errors import BingoError
from bingo.study.facts import NAMED_SETS

DEMO = Path(__file__).parent / "demo" / "fashion-mnist-15k.h5"
DEMO_SHA256 = "b50436b2df9085ac5bbac59f0c261709b42ad6f4377bc6fdb89f527c3fc06e28"

_IDX_NAMES = {"train": "train", "val": "t10k"}

Arrays = tuple[NDArray[np.uint8], NDArray[np.int64]]


def class_names(source: str, count: int) -> list[str]:
    """Return the names of a dataset's ``count`` classes, in label order. CIFAR-100's names are numbers."""
    return list(NAMED_SETS[source].classes) or [str(label) for label in range(count)]


def load_arrays(source: str, root: Path, split: str) -> Arrays:
    """Load one split of a named dataset.

    Args:
        source: ``demo`` or a torchvision dataset.
        root: folder of the dataset, or destination of the download; unused for ``demo``.
        split: ``train`` or ``val``. The training split of STL-10 includes its unlabelled images.

    Returns:
        Images uint8 (N, H, W, C), where C is 1 or 3, and labels int64 (N,), -1 where unknown.

    Raises:
        BingoError: the dataset is damaged, or is missing and cannot be downloaded.
    """
    if source == "demo":
        return _load_demo(split)
    if source == "fashion-mnist" and (root / f"{_IDX_NAMES[split]}-images-idx3-ubyte.gz").exists():
        return load_idx(root, split)
    import torchvision

    dataset_class = getattr(torchvision.datasets, NAMED_SETS[source].torchvision)
    options: dict[str, Any]
    if source == "stl10":
        options = {"split": "train+unlabeled" if split == "train" else "test"}
    else:
        options = {"train": split == "train"}
    try:
        root.mkdir(parents=True, exist_ok=True)
        dataset = dataset_class(str(root), download=True, **options)
    except (OSError, RuntimeError) as error:
        raise BingoError(
            f"data.root: {source} is not in {root} and cannot be downloaded ({error}); copy its files there"
        ) from error
    images = np.asarray(dataset.data)
    labels = np.asarray(dataset.labels if source == "stl10" else dataset.targets, dtype=np.int64)
    if source == "stl10":
        images = images.transpose(0, 2, 3, 1)
    return images.reshape(*images.shape[:3], -1), labels


def load_idx(folder: Path, split: str) -> Arrays:
    """Read one split from gzipped IDX files (MNIST's format) in ``folder``.

    Returns:
        Images uint8 (N, 28, 28, 1) and labels int64 (N,).

    Raises:
        BingoError: a file does not exist or is damaged.
    """
    name = _IDX_NAMES[split]
    images = _read_gzip(folder / f"{name}-images-idx3-ubyte.gz")
    labels = _read_gzip(folder / f"{name}-labels-idx1-ubyte.gz")
    count, height, width = (int.from_bytes(images[start : start + 4]) for start in (4, 8, 12))
    pixels = np.frombuffer(images[16:], np.uint8)
    if len(pixels) != count * height * width or len(labels) != 8 + count:
        raise BingoError(
            f"{folder}: the IDX files of the {split} split do not hold the {count} images of their header; "
            "download them again"
        )
    return pixels.reshape(count, height, width, 1), np.frombuffer(labels[8:], np.uint8).astype(np.int64)


def _read_gzip(path: Path) -> bytes:
    try:
        return gzip.decompress(path.read_bytes())
    except (OSError, EOFError, zlib.error) as error:
        raise BingoError(f"{path}: cannot be read ({error}); download it again") from error


def _load_demo(split: str) -> Arrays:
    content = DEMO.read_bytes()
    if hashlib.sha256(content).hexdigest() != DEMO_SHA256:
        raise BingoError(f"{DEMO}: is damaged (wrong checksum); restore it with git checkout")
    with h5py.File(DEMO, "r") as file:
        return file[f"{split}/image"][:][..., None], file[f"{split}/label"][:].astype(np.int64)
