"""Facts about a dataset that are known before any job runs: labels, validation set, folders.

Does not import torch: Snakemake runs this at every start.
"""

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from bingo.errors import BingoError

if TYPE_CHECKING:
    from bingo.study.images import FolderSet, ImageSet


class NamedSet(NamedTuple):
    """Facts about a built-in dataset."""

    train_images: int
    torchvision: str
    """Class in `torchvision.datasets`; empty if torchvision does not have the dataset."""
    classes: tuple[str, ...]
    """Class names in label order; empty if classes are numbers."""


_FASHION = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")
_CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
_STL10 = ("airplane", "bird", "car", "cat", "deer", "dog", "horse", "monkey", "ship", "truck")
NAMED_SETS = {
    "demo": NamedSet(10_000, "", _FASHION),
    "fashion-mnist": NamedSet(60_000, "FashionMNIST", _FASHION),
    "cifar10": NamedSet(50_000, "CIFAR10", _CIFAR10),
    "cifar100": NamedSet(50_000, "CIFAR100", ()),
    "stl10": NamedSet(105_000, "STL10", _STL10),
}


@dataclass(frozen=True)
class SourceFacts:
    """Facts about a dataset: labels, splits, size and folders."""

    labels: bool
    validation: bool
    most_images: int | None
    """Upper bound on the number of training images; None for a folder without `max_train`, which is not counted."""
    folders: dict[str, list[str]]
    """Folders of each split; their modification times show that files were added or removed."""

    @property
    def is_imagenet(self) -> bool:
        """Whether the class folders are 1,000 WordNet IDs, as in ImageNet."""
        names = [Path(folder).name for folder in self.folders["train"][1:]]
        return len(names) == 1000 and all(re.fullmatch(r"n\d{8}", name) for name in names)


def source_facts(data: "ImageSet", key: str) -> SourceFacts:
    """Return facts about the dataset under ``key`` of the study without reading its images.

    Raises:
        BingoError: a folder is missing or empty, or `held_out` is set for a folder without class folders.
    """
    if data.source != "folder":
        total = NAMED_SETS[data.source].train_images
        images = min(total, data.max_train or total)
        return SourceFacts(labels=True, validation=True, most_images=images, folders={"train": [], "val": []})
    folders = {"train": [data.train, *class_folders(Path(data.train), f"{key}.train")], "val": []}
    if data.val is not None:
        folders["val"] = [data.val, *class_folders(Path(data.val), f"{key}.val")]
    elif data.held_out is not None:
        folders["val"] = folders["train"]
    return SourceFacts(has_labels(data, key), bool(folders["val"]), data.max_train, folders)


def has_labels(data: "FolderSet", key: str) -> bool:
    """Return whether the first folder level of the dataset under ``key`` of the study names classes.

    Raises:
        BingoError: `labels: folders` or `held_out` is set for a folder without class folders.
    """
    if data.labels == "none":
        return False
    labelled = bool(class_folders(Path(data.train), f"{key}.train"))
    if data.held_out is not None and not labelled:
        raise BingoError(f"{key}.held_out: {data.train} has no class folders to hold images out of; remove this key")
    if data.labels == "folders" and not labelled:
        raise BingoError(f"{key}.train: {data.train} has no class folders; set {key}.labels: none")
    return labelled


def class_folders(folder: Path, key: str) -> list[str]:
    """Return the sorted subfolders of ``folder``, which the study names under ``key``.

    Raises:
        BingoError: ``folder`` is missing or empty, or a name contains braces.
    """
    if not folder.is_dir():
        raise BingoError(f"{key}: there is no folder {folder}; correct the path")
    with os.scandir(folder) as iterator:
        entries = [entry for entry in iterator if not entry.name.startswith(".")]
    if not entries:
        raise BingoError(f"{key}: the folder {folder} is empty; correct the path")
    folders = sorted(str(folder / entry.name) for entry in entries if entry.is_dir())
    for name in (str(folder), *folders):
        if "{" in name or "}" in name:
            raise BingoError(f"{key}: {name} has braces in its name, which Snakemake does not support; rename it")
    return folders
