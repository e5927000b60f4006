"""Survey a folder of images to write a study for it."""

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from bingo.data.decode import SUFFIXES, BadImageError, decode, open_image
from bingo.data.folder import class_of, held_out, is_image, walk
from bingo.errors import BingoError
from bingo.philox import Stream, permutation
from bingo.progress import Progress
from bingo.study.facts import class_folders
from bingo.study.new import HELD_OUT_SHARE, MIN_VALIDATION, FolderSurvey

SURVEY_DECODED = 5_000
"""Maximum number of images to decode; a larger folder is sampled at random."""
_VALIDATION = ("val", "valid", "validation", "test")
_CHUNK_FILES = 1024
_GREY_TOLERANCE = 2.0
"""Mean difference of channels, in grey levels, up to which an image is grey; JPEG rounding stays below."""


@dataclass(frozen=True)
class ImageFacts:
    """Properties of one image file."""

    size: tuple[int, int]
    """Stored width and height in pixels; (0, 0) if the file is not an image."""
    fault: str = ""
    """Why the file cannot be read; empty if it can."""
    coloured: bool = False
    """Whether the channels differ; only known for decoded images."""
    moments: tuple[float, float] | None = None
    """Mean of the pixels and of their squares, for pixels in [0, 1]; None if not decoded."""


def survey(folder: Path, threads: int) -> FolderSurvey:
    """Read the header of every image below a folder, and decode up to `SURVEY_DECODED` images.

    Args:
        folder: class folders, a flat folder, or a folder with `train` and optionally `val`, `valid`, `validation` or
            `test`, and no other folders.
        threads: number of threads.

    Raises:
        BingoError: the folder does not exist, is empty, or contains no readable image.
    """
    splits = {Path(path).name.lower(): Path(path) for path in class_folders(folder, "--data")}
    others = splits.keys() - {"train", *_VALIDATION}
    train = splits.get("train", folder) if not others else folder  # with other folders, `train` is a class
    names = _images(train)
    if not names:
        raise BingoError(f"--data: {train} contains no image ({', '.join(sorted(SUFFIXES))}); choose another folder")
    unlabelled = _why_unlabelled(names)
    classes = [] if unlabelled else sorted({class_of(name) for name in names})
    val, validation, unused = None, list[str](), list[str]()
    for name in _VALIDATION if train != folder else ():
        if name not in splits:
            continue
        candidates = _images(splits[name])
        reason = "another folder is used" if val else _why_no_validation(candidates, classes)
        if reason:
            unused.append(f"{splits[name]} ({reason})")
        else:
            val, validation = splits[name], candidates
    files = [train / name for name in names] + [val / name for name in validation if val]
    facts = _inspect_images(files, threads)
    readable = [image for image in facts if not image.fault]
    if not readable:
        raise BingoError(f"--data: none of the {len(files)} images in {folder} can be read; choose another folder")
    decoded = [image for image in readable if image.moments is not None]
    moments = (
        np.mean([image.moments for image in decoded if image.moments], axis=0) if decoded else np.array([0.5, 0.5])
    )
    sides = sorted(min(image.size) for image in readable)
    return FolderSurvey(
        train=train,
        val=val,
        unused=unused,
        names=names,
        validation=validation,
        classes=classes,
        held_out=_held_out(names) if classes and not val else set(),
        unlabelled=unlabelled,
        unreadable={str(path): image.fault for path, image in zip(files, facts, strict=True) if image.fault},
        decoded=len(decoded),
        sides=(sides[0], sides[len(sides) // 2], sides[-1]),
        grey=100 * sum(image.coloured for image in decoded) < len(decoded),
        mean=float(moments[0]),
        std=float(np.sqrt(max(0.0, moments[1] - moments[0] ** 2))),
    )


def _held_out(names: list[str]) -> set[str]:
    validation = held_out(names, HELD_OUT_SHARE)
    return validation if len(validation) >= MIN_VALIDATION else set()


def _images(folder: Path) -> list[str]:
    return [name for name in walk(folder) if is_image(name)]


def _why_unlabelled(names: list[str]) -> str:
    """Return why the data stage cannot take labels from the folders; empty if it can."""
    if all("/" not in name for name in names):
        return "there are no class folders"
    if stray := next((name for name in names if "/" not in name), None):
        return f"{printable(stray)} is not in a class folder"
    return "there is only one class folder" if len({class_of(name) for name in names}) == 1 else ""


def _why_no_validation(names: list[str], classes: list[str]) -> str:
    """Return why the images cannot be the validation set for these classes; empty if they can."""
    if not names:
        return "no images"
    if classes and (stray := next((name for name in names if class_of(name) not in classes or "/" not in name), "")):
        return f"{printable(stray)} is in no class of the training images"
    return ""


def printable(name: str) -> str:
    """Return a file name with all unprintable characters and invalid bytes escaped."""
    text = os.fsencode(name).decode("utf-8", "backslashreplace")
    return "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in text)


def _inspect_images(files: list[Path], threads: int) -> list[ImageFacts]:
    sample = set(permutation(0, Stream.SUBSET, 0, len(files))[:SURVEY_DECODED].tolist())
    facts: list[ImageFacts] = []
    with ThreadPoolExecutor(threads) as pool, Progress("inspecting images", len(files), "images") as progress:
        for start in range(0, len(files), _CHUNK_FILES):
            indices = range(start, min(start + _CHUNK_FILES, len(files)))
            for image in pool.map(lambda i: inspect_image(files[i], i in sample), indices):
                facts.append(image)
                progress.advance(1)
    return facts


def inspect_image(path: Path, whole: bool) -> ImageFacts:
    """Return the properties of an image file, from its header or, if ``whole``, from all its pixels."""
    try:
        with path.open("rb") as file:
            size = open_image(file).size
            file.seek(0)
            return _decoded(size, decode(file.read())) if whole else ImageFacts(size)
    except BadImageError as error:
        return ImageFacts((0, 0), str(error))
    except OSError as error:
        return ImageFacts((0, 0), error.strerror or str(error))


def _decoded(size: tuple[int, int], pixels: Tensor) -> ImageFacts:
    """Return the properties of a decoded image (3, H, W), from a grid of a few thousand pixels."""
    step = max(1, min(size) // 64)
    grid = pixels[:, ::step, ::step].to(torch.float32)  # (3, h, w)
    difference = (grid.amax(0) - grid.amin(0)).mean().item()
    return ImageFacts(
        size, "", difference > _GREY_TOLERANCE, ((grid / 255).mean().item(), (grid / 255).square().mean().item())
    )
