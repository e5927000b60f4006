"""What is known of a dataset before anything runs: has it labels, has it a validation set, which folders hold it.

Imports no torch: this is asked whenever Snakemake starts.
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
    """What is known of a set that a study names."""

    train_images: int
    torchvision: str
    """Its class in `torchvision.datasets`; empty where it is none of torchvision's."""
    classes: tuple[str, ...]
    """Names in the order of labels; empty where they are numbers."""


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
    """What a study can do with its data."""

    labels: bool
    validation: bool
    most_images: int | None
    """Training images there are at most; None for a folder without `max_train`, whose files nobody has counted."""
    folders: dict[str, list[str]]
    """Of each split, the folders whose modification time tells that files came or went."""

    @property
    def is_imagenet(self) -> bool:
        """Whether the classes are a thousand WordNet numbers, as only ImageNet's are."""
        names = [Path(folder).name for folder in self.folders["train"][1:]]
        return len(names) == 1000 and all(re.fullmatch(r"n\d{8}", name) for name in names)


def source_facts(data: "ImageSet", key: str) -> SourceFacts:
    """Look at a dataset as cheaply as possible; ``key`` is the study's key that describes it.

    Raises:
        BingoError: a folder is missing or holds nothing, or images are to be held out of a folder without classes.
    """
    if data.source != "folder":
        every = NAMED_SETS[data.source].train_images
        images = min(every, data.max_train or every)
        return SourceFacts(labels=True, validation=True, most_images=images, folders={"train": [], "val": []})
    folders = {"train": [data.train, *class_folders(Path(data.train), f"{key}.train")], "val": []}
    if data.val is not None:
        folders["val"] = [data.val, *class_folders(Path(data.val), f"{key}.val")]
    elif data.held_out is not None:
        folders["val"] = folders["train"]
    return SourceFacts(has_labels(data, key), bool(folders["val"]), data.max_train, folders)


def has_labels(data: "FolderSet", key: str) -> bool:
    """Tell whether the first folder level names classes; ``key`` is the study's key that describes the set.

    Raises:
        BingoError: `labels: folders` or `held_out` was asked of a folder without folders in it.
    """
    if data.labels == "none":
        return False
    found = bool(class_folders(Path(data.train), f"{key}.train"))
    if data.held_out is not None and not found:
        raise BingoError(f"{key}.held_out: {data.train} has no class folders to hold images out of; leave it out")
    if data.labels == "folders" and not found:
        raise BingoError(f"{key}.train: {data.train} has no class folders; set {key}.labels: none")
    return found


def class_folders(folder: Path, key: str) -> list[str]:
    """Return the sorted folders directly inside ``folder``.

    Raises:
        BingoError: ``folder`` is missing or empty, or a name holds braces; ``key`` is the study's key that names it.
    """
    if not folder.is_dir():
        raise BingoError(f"{key}: there is no folder {folder}; correct the path")
    with os.scandir(folder) as entries:
        found = [entry for entry in entries if not entry.name.startswith(".")]
    if not found:
        raise BingoError(f"{key}: the folder {folder} is empty")
    folders = sorted(str(folder / entry.name) for entry in found if entry.is_dir())
    for name in (str(folder), *folders):
        if "{" in name or "}" in name:
            raise BingoError(f"{key}: {name} has braces in its name, which Snakemake cannot take; rename it")
    return folders
