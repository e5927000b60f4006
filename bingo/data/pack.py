"""The pack stage: a folder's images in one file, which is a listing that brings them.

Cluster file systems serve one large file better than a million small ones. A pack has the datasets of a folder's
listing, `size`, `bytes` and `crc32` being those of the images as it holds them, and their bytes in blocks
(`bingo.data.blocks`). Its digest is the listing's where every image was taken as it is.
"""

import hashlib
import logging
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np

from bingo.artifacts import digest_arrays, provenance, write_hdf5
from bingo.config import Pack
from bingo.data.blocks import write_blocks
from bingo.data.images import open_images
from bingo.data.listing import read_listing, store
from bingo.data.pictures import Picture, shortened
from bingo.errors import BingoError
from bingo.jobs import PackJob
from bingo.progress import Progress
from bingo.vision import torchvision

log = logging.getLogger(__name__)

_PER_THREAD = 8
"""Images that wait for each thread."""


def write_pack(job: PackJob, listing_path: Path, output: Path, threads: int) -> None:
    """Pack the images of a listing.

    Memory holds one block, and a few images per thread.

    Args:
        job: the stage's settings.
        listing_path: listing of a folder.
        output: HDF5 file to write.
        threads: images read, and shortened, at once.

    Raises:
        BingoError: the listing is damaged or not of a folder, or an image is not the one that was listed.
    """
    listing = read_listing(listing_path, job.split)
    if listing.source != "folder":
        raise BingoError(f"{listing_path}: lists {listing.source}, but only the images of a folder can be packed")
    images, count = open_images(listing), len(listing)
    size, nbytes = np.zeros((count, 2), dtype=np.int64), np.zeros(count, dtype=np.int64)
    crc32, hashes = np.zeros(count, dtype=np.uint32), np.zeros(count, dtype="S64")

    def packed(i: int) -> tuple[bytes, tuple[int, int]]:
        picture = next(iter(images.fetch(np.array([i]))))
        assert isinstance(picture, Picture)
        return _pack(picture, job.pack)

    def contents() -> Iterator[bytes]:
        step = _PER_THREAD * threads
        with ThreadPoolExecutor(threads) as pool, Progress(f"{job.split} pack", count, "images") as progress:
            for start in range(0, count, step):
                rows = range(start, min(start + step, count))
                for i, (content, size[i]) in zip(rows, pool.map(packed, rows), strict=True):
                    nbytes[i], crc32[i] = len(content), zlib.crc32(content)
                    hashes[i] = hashlib.sha256(content).hexdigest()
                    yield content
                    progress.advance(1)

    settings = job.model_dump(mode="json")
    attributes = {
        "kind": "listing",
        "source": "pack",
        "provenance": provenance("pack", job.version, settings, {"listing": listing.digest}, images=count),
    }
    with write_hdf5(output, attributes) as file:
        group = file.create_group(job.split)
        write_blocks(group, contents())
        made = replace(listing, size=size, nbytes=nbytes, crc32=crc32)
        if shortened_images := int((crc32 != listing.crc32).sum()):
            made = replace(made, digest=digest_arrays({"label": listing.label, "hash": hashes}))
        store(group, made)
    log.info("%s: %d images packed, %d of them shortened", job.split, count, shortened_images)


def _pack(picture: Picture, pack: Pack) -> tuple[bytes, tuple[int, int]]:
    """Return an image's bytes in the pack, and its height and width there."""
    if pack.shorter_side is None or min(picture.size) <= pack.shorter_side:
        return picture.content, picture.size
    size = shortened(picture.size, pack.shorter_side)
    pixels = picture.view((0, 0, *picture.size), size, "bilinear")
    return torchvision.io.encode_jpeg(pixels, pack.quality).numpy().tobytes(), size
