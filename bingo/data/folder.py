"""The files of an image folder: found in a fixed order, and each proved sound."""

import hashlib
import os
import zlib
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from bingo.data.decode import SUFFIXES, BadImageError, decode_image
from bingo.errors import BingoError
from bingo.progress import Progress

_CHUNK_FILES = 1024
"""Files waiting for a decoder: a task for every file of a folder would fill the memory."""


def is_image(name: str) -> bool:
    """Tell by a file's name, folders before it or not, whether it is an image that is not hidden."""
    return name.lower().endswith(tuple(SUFFIXES)) and not name.rpartition("/")[2].startswith(".")


def walk(root: Path) -> Iterator[str]:
    """Yield every file below ``root``, relative to it, through links too: class folders often are links.

    They come in the order of their paths' parts. Hidden folders are passed over, as hidden files are: tools keep
    thumbnails and old versions there.

    Raises:
        BingoError: a folder cannot be entered, or links to one around it.
    """
    yield from _walk(root, "")


def _walk(root: Path, inside: str) -> Iterator[str]:
    try:
        with os.scandir(root / inside) as found:
            entries = sorted(found, key=lambda entry: entry.name)
    except OSError as error:
        raise BingoError(f"{error.filename}: cannot be read ({error.strerror}); repair or remove it") from error
    for entry in entries:
        name = inside + entry.name
        if not _is_folder(entry):
            yield name
        elif not entry.name.startswith("."):
            link = root / name
            if entry.is_symlink() and link.resolve() in {parent.resolve() for parent in link.parents}:
                raise BingoError(f"{link}: links to a folder around it; remove the link")
            yield from _walk(root, f"{name}/")


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # links in a circle: read as a file, it is refused by name
        return False


def class_of(name: str) -> str:
    """Return the first folder of a file's path below the folder of a split."""
    return name.partition("/")[0]


def held_out(names: Iterable[str], share: float) -> set[str]:
    """Return those of ``names``, paths that begin with a class folder, that are validation images.

    A file's own path decides, so that another file moves none. Only where all or none of a class were drawn, the file
    nearest to the limit changes sides: a class of two files or more has one on either side; a single file trains.
    """
    classes: dict[str, list[tuple[float, str]]] = {}
    for name in names:
        word = hashlib.sha256(os.fsencode(name)).digest()[:8]
        classes.setdefault(class_of(name), []).append((int.from_bytes(word) / 2**64, name))
    drawn: set[str] = set()
    for files in classes.values():
        files.sort()
        count = sum(number < share for number, _ in files)
        drawn |= {name for _, name in files[: min(max(count, 1), len(files) - 1)]}
    return drawn


@dataclass(frozen=True)
class ImageEntry:
    """What a listing keeps of a sound image."""

    height: int
    width: int
    nbytes: int
    crc32: int
    sha256: bytes
    """64 hexadecimal digits."""


def decode_files(root: Path, names: list[str], threads: int, title: str) -> Iterator[ImageEntry | BadImageError]:
    """Decode each file and yield what it is, in order, or why it cannot be decoded."""

    def examine_one(name: str) -> ImageEntry | BadImageError:
        try:
            content = (root / name).read_bytes()
            width, height = decode_image(content).size
        except OSError as error:
            return BadImageError(error.strerror or str(error))
        except BadImageError as error:
            return error
        return ImageEntry(
            height, width, len(content), zlib.crc32(content), hashlib.sha256(content).hexdigest().encode()
        )

    with ThreadPoolExecutor(threads) as pool, Progress(f"{title} images", len(names), "images") as progress:
        for start in range(0, len(names), _CHUNK_FILES):
            for found in pool.map(examine_one, names[start : start + _CHUNK_FILES]):
                yield found
                progress.advance(1)
