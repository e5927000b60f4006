"""The pack stage: a folder's images in one file, which is a listing that brings them."""

import hashlib
import logging
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np

from bingo.artifacts.hdf5 import write_hdf5
from bingo.artifacts.provenance import digest_arrays, provenance
from bingo.data.blocks import write_blocks
from bingo.data.images import open_images
from bingo.data.listing import read_listing, store
from bingo.data.pack import pack_image
from bingo.data.pictures import Picture
from bingo.errors import BingoError
from bingo.progress import Progress
from bingo.study.jobs import PackJob

log = logging.getLogger(__name__)

_PER_THREAD = 8
"""Images that wait for each thread."""


def run(job: PackJob, threads: int) -> None:
    """Pack the images of a listing; ``threads`` are read, and shortened, at once.

    Memory holds one block, and a few images per thread.

    Raises:
        BingoError: the listing is damaged or not of a folder, or an image is not the one that was listed.
    """
    listing = read_listing(job.listing, job.split)
    if listing.source != "folder":
        raise BingoError(f"{job.listing}: lists {listing.source}, but only the images of a folder can be packed")
    images, count = open_images(listing), len(listing)
    size, nbytes = np.zeros((count, 2), dtype=np.int64), np.zeros(count, dtype=np.int64)
    crc32, hashes = np.zeros(count, dtype=np.uint32), np.zeros(count, dtype="S64")

    def packed(i: int) -> tuple[bytes, tuple[int, int]]:
        picture = next(iter(images.fetch(np.array([i]))))
        assert isinstance(picture, Picture)
        return pack_image(picture, job.pack)

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

    attributes = {
        "kind": "listing",
        "source": "pack",
        "provenance": provenance("pack", job.STAGE_VERSION, job.settings, {"listing": listing.digest}, images=count),
    }
    with write_hdf5(job.output, attributes) as file:
        group = file.create_group(job.split)
        write_blocks(group, contents())
        made = replace(listing, size=size, nbytes=nbytes, crc32=crc32)
        if shortened_images := int((crc32 != listing.crc32).sum()):
            made = replace(made, digest=digest_arrays({"label": listing.label, "hash": hashes}))
        store(group, made)
    log.info("%s: %d images packed, %d of them shortened", job.split, count, shortened_images)
