"""The pack stage: write a folder's images into one file, together with their listing."""

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
"""Images submitted at once, per thread."""


def run(job: PackJob, threads: int) -> None:
    """Pack the images of a listing, reading and resizing with ``threads`` threads.

    Memory: one block and a few images per thread.

    Raises:
        BingoError: the listing is damaged or not of a folder, or an image has changed since it was listed.
    """
    listing = read_listing(job.listing, job.split)
    if listing.source != "folder":
        raise BingoError(f"{job.listing}: lists {listing.source}, but only the images of a folder can be packed")
    images, count = open_images(listing), len(listing)
    size, nbytes = np.zeros((count, 2), dtype=np.int64), np.zeros(count, dtype=np.int64)
    crc32, hashes = np.zeros(count, dtype=np.uint32), np.zeros(count, dtype="S64")

    def encode(i: int) -> tuple[bytes, tuple[int, int]]:
        picture = next(iter(images.fetch(np.array([i]))))
        assert isinstance(picture, Picture)
        return pack_image(picture, job.pack)

    def contents() -> Iterator[bytes]:
        step = _PER_THREAD * threads
        with ThreadPoolExecutor(threads) as pool, Progress(f"{job.split} pack", count, "images") as progress:
            for start in range(0, count, step):
                rows = range(start, min(start + step, count))
                for i, (content, size[i]) in zip(rows, pool.map(encode, rows), strict=True):
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
        packed = replace(listing, size=size, nbytes=nbytes, crc32=crc32)
        if resized := int((crc32 != listing.crc32).sum()):
            packed = replace(packed, digest=digest_arrays({"label": listing.label, "hash": hashes}))
        store(group, packed)
    log.info("%s: %d images packed, %d of them resized", job.split, count, resized)
