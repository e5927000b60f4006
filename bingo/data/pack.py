"""Encode an image for a pack: all images of a listing in one file, optionally resized.

Cluster file systems serve one large file better than a million small ones. A pack contains the datasets of a folder's
listing and the images' bytes in blocks (`bingo.data.blocks`). `size`, `bytes` and `crc32` describe the images in the
pack. If no image was resized, the pack has the same digest as the listing.
"""

import io

from PIL import Image

from bingo.data.pictures import Picture
from bingo.study.images import Pack
from bingo.views.apply import resized_shape


def pack_image(picture: Picture, pack: Pack) -> tuple[bytes, tuple[int, int]]:
    """Return an image's bytes in the pack and its (height, width), resized if it is larger than the pack's limit."""
    if pack.shorter_side is None or min(picture.size) <= pack.shorter_side:
        return picture.content, picture.size
    size = resized_shape(picture.size, pack.shorter_side)
    pixels = picture.view((0, 0, *picture.size), size, "bilinear")
    file = io.BytesIO()
    Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(file, "JPEG", quality=pack.quality)
    return file.getvalue(), size
