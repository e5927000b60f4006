"""The pack stage: a folder's images in one file, which is a listing that brings them.

Cluster file systems serve one large file better than a million small ones. A pack has the datasets of a folder's
listing, `size`, `bytes` and `crc32` being those of the images as it holds them, and their bytes in blocks
(`bingo.data.blocks`). Its digest is the listing's where every image was taken as it is.
"""

import logging

import torchvision

from bingo.data.pictures import Picture
from bingo.study.images import Pack
from bingo.views.apply import shortened

log = logging.getLogger(__name__)

_PER_THREAD = 8
"""Images that wait for each thread."""


def pack_image(picture: Picture, pack: Pack) -> tuple[bytes, tuple[int, int]]:
    """Return an image's bytes in the pack, and its height and width there."""
    if pack.shorter_side is None or min(picture.size) <= pack.shorter_side:
        return picture.content, picture.size
    size = shortened(picture.size, pack.shorter_side)
    pixels = picture.view((0, 0, *picture.size), size, "bilinear")
    return torchvision.io.encode_jpeg(pixels, pack.quality).numpy().tobytes(), size
