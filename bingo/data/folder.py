"""Find the images of a folder in a fixed order, and check that each one can be decoded."""

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
"""Files submitted to the thread pool at once. One task per file of a large folder would take too much memory."""


def is_image(name: str) -> bool:
    """Tell by its name or path whether a file is an image. Hidden files are not."""
    return name.lower().endswith(tuple(SUFFIXES)) and not name.rpartition("/")[2].startswith(".")


def walk(root: Path) -> Iterator[str]:
    """Yield the path of every file below ``root``, relative to it, sorted by path components.

    Follows symbolic links, because class folders often are links. Skips hidden folders, where tools keep thumbnails and
    old versions.

    Raises:
        BingoError: a folder cannot be read, or is a link to one of its parents.
    """
    yield from _walk(root, "")


def _walk(root: Path, prefix: str) -> Iterator[str]:
    try:
        with os.scandir(root / prefix) as scan:
            entries = sorted(scan, key=lambda entry: entry.name)
    except OSError as error:
        raise BingoError(f"{error.filename}: cannot be read ({error.strerror}); repair or remove it") from error
    for entry in entries:
        name = prefix + entry.name
        if not _is_folder(entry):
            yield name
        elif not entry.name.startswith("."):
            link = root / name
            if entry.is_symlink() and link.resolve() in {parent.resolve() for parent in link.parents}:
                raise BingoError(f"{link}: is a link to one of its parent folders; remove it")
            yield from _walk(root, f"{name}/")


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a cycle of links; reading it as a file reports its name
        return False


def class_of(name: str) -> str:
    """Return the first folder of a path below the split's folder."""
    return name.partition("/")[0]


def held_out(names: Iterable[str], share: float) -> set[str]:
    """Select about ``share`` of the files as validation images, by a hash of their paths.

    Adding or removing a file does not move other files between the splits. One exception: a class of two or more files
    has at least one file in each split, so the file closest to the threshold moves if necessary. The only file of a
    class is a training image.

    Args:
        names: paths that start with a class folder.
        share: fraction of validation images, 0 to 1.
    """
    classes: dict[str, list[tuple[float, str]]] = {}
    for name in names:
        word = hashlib.sha256(os.fsencode(name)).digest()[:8]
        classes.setdefault(class_of(name), []).append((int.from_bytes(word) / 2**64, name))
    selected: set[str] = set()
    for files in classes.values():
        files.sort()
        count = sum(number < share for number, _ in files)
        selected |= {name for _, name in files[: min(max(count, 1), len(files) - 1)]}
    return selected


@dataclass(frozen=True)
class ImageEntry:
    """A decoded image's entry in a listing."""

    height: int
    width: int
    nbytes: int
    crc32: int
    sha256: bytes
    """64 hexadecimal digits."""


def decode_files(root: Path, names: list[str], threads: int, title: str) -> Iterator[ImageEntry | BadImageError]:
    """Decode each file, in order, and yield its entry or the reason why it cannot be decoded."""

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
            for entry in pool.map(examine_one, names[start : start + _CHUNK_FILES]):
                yield entry
                progress.advance(1)
