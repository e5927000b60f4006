"""What lies in a folder of images, as facts from which a study can be written."""

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
"""Images that are decoded: all, or so many drawn at random."""
_VALIDATION = ("val", "valid", "validation", "test")
_CHUNK_FILES = 1024
_GREY_TOLERANCE = 2.0
"""Grey levels that an image's channels are apart in the mean; the rounding of a grey JPEG stays below."""


@dataclass(frozen=True)
class ImageFacts:
    """What one file is."""

    size: tuple[int, int]
    """Width and height as they are stored, in pixels; (0, 0) of what is no image."""
    fault: str = ""
    """Why it cannot be read, empty if it can."""
    coloured: bool = False
    """Whether its channels differ; looked at where it was decoded."""
    moments: tuple[float, float] | None = None
    """Mean of its pixels and of their squares, in [0, 1]; None where it was not decoded."""


def survey(folder: Path, threads: int) -> FolderSurvey:
    """Look at every image's header below a folder, and decode them, or `SURVEY_DECODED` of them drawn at random.

    Args:
        folder: class folders, a flat folder, or one that holds `train` and perhaps `val`, `valid`, `validation` or
            `test`, and no other folder.
        threads: files looked at side by side.

    Raises:
        BingoError: the folder is missing, empty, or holds no image that can be read.
    """
    splits = {Path(path).name.lower(): Path(path) for path in class_folders(folder, "--data")}
    others = splits.keys() - {"train", *_VALIDATION}
    train = splits.get("train", folder) if not others else folder  # else `train` is a class among others
    names = _images(train)
    if not names:
        raise BingoError(f"--data: {train} holds no image ({', '.join(sorted(SUFFIXES))}); name another folder")
    unlabelled = _why_unlabelled(names)
    classes = [] if unlabelled else sorted({class_of(name) for name in names})
    val, validation, aside = None, list[str](), list[str]()
    for name in _VALIDATION if train != folder else ():
        if name not in splits:
            continue
        found = _images(splits[name])
        fault = "there is another" if val else _why_no_validation(found, classes)
        if fault:
            aside.append(f"{splits[name]} ({fault})")
        else:
            val, validation = splits[name], found
    files = [train / name for name in names] + [val / name for name in validation if val]
    facts = _inspect_images(files, threads)
    sound = [look for look in facts if not look.fault]
    if not sound:
        raise BingoError(f"--data: none of the {len(files)} images in {folder} can be read")
    decoded = [look for look in sound if look.moments is not None]
    moments = np.mean([look.moments for look in decoded if look.moments], axis=0) if decoded else np.array([0.5, 0.5])
    sides = sorted(min(look.size) for look in sound)
    return FolderSurvey(
        train=train,
        val=val,
        aside=aside,
        names=names,
        validation=validation,
        classes=classes,
        held_out=_held_out(names) if classes and not val else set(),
        unlabelled=unlabelled,
        unreadable={str(path): look.fault for path, look in zip(files, facts, strict=True) if look.fault},
        decoded=len(decoded),
        sides=(sides[0], sides[len(sides) // 2], sides[-1]),
        grey=100 * sum(look.coloured for look in decoded) < len(decoded),
        mean=float(moments[0]),
        std=float(np.sqrt(max(0.0, moments[1] - moments[0] ** 2))),
    )


def _held_out(names: list[str]) -> set[str]:
    drawn = held_out(names, HELD_OUT_SHARE)
    return drawn if len(drawn) >= MIN_VALIDATION else set()


def _images(folder: Path) -> list[str]:
    return [name for name in walk(folder) if is_image(name)]


def _why_unlabelled(names: list[str]) -> str:
    """Return why folders are no labels as the data stage reads them, empty if they are."""
    if all("/" not in name for name in names):
        return "there are no class folders"
    if stray := next((name for name in names if "/" not in name), None):
        return f"{printable(stray)} lies in no class folder"
    return "there is one class folder only" if len({class_of(name) for name in names}) == 1 else ""


def _why_no_validation(names: list[str], classes: list[str]) -> str:
    """Return why images cannot validate a training on these classes, empty if they can."""
    if not names:
        return "no images"
    if classes and (strange := next((name for name in names if class_of(name) not in classes or "/" not in name), "")):
        return f"{printable(strange)} is in no class of the training images"
    return ""


def printable(name: str) -> str:
    """Return a file's name for a line of text: what is no text in it, or would end the line, is escaped."""
    shown = os.fsencode(name).decode("utf-8", "backslashreplace")
    return "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in shown)


def _inspect_images(files: list[Path], threads: int) -> list[ImageFacts]:
    drawn = set(permutation(0, Stream.SUBSET, 0, len(files))[:SURVEY_DECODED].tolist())
    facts: list[ImageFacts] = []
    with ThreadPoolExecutor(threads) as pool, Progress("looking at images", len(files), "images") as progress:
        for start in range(0, len(files), _CHUNK_FILES):
            places = range(start, min(start + _CHUNK_FILES, len(files)))
            for look in pool.map(lambda place: inspect_image(files[place], place in drawn), places):
                facts.append(look)
                progress.advance(1)
    return facts


def inspect_image(path: Path, whole: bool) -> ImageFacts:
    """Return what a file is, by its header alone or decoded as a whole."""
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
    """Return what an image (3, H, W) is, of pixels some way apart: some thousands of them tell as much as all."""
    step = max(1, min(size) // 64)
    few = pixels[:, ::step, ::step].to(torch.float32)
    apart = (few.amax(0) - few.amin(0)).mean().item()
    return ImageFacts(
        size, "", apart > _GREY_TOLERANCE, ((few / 255).mean().item(), (few / 255).square().mean().item())
    )
