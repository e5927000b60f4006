"""How a pack holds an image: one listing's files in one file, larger ones resized_shape where that is asked for.

Cluster file systems serve one large file better than a million small ones. A pack has the datasets of a folder's
listing, `size`, `bytes` and `crc32` being those of the images as it holds them, and their bytes in blocks
(`bingo.data.blocks`). Its digest is the listing's where every image was taken as it is.
"""

import io

from PIL import Image

from bingo.data.pictures import Picture
from bingo.study.images import Pack
from bingo.views.apply import resized_shape


def pack_image(picture: Picture, pack: Pack) -> tuple[bytes, tuple[int, int]]:
    """Return an image's bytes in the pack, and its height and width there."""
    if pack.shorter_side is None or min(picture.size) <= pack.shorter_side:
        return picture.content, picture.size
    size = resized_shape(picture.size, pack.shorter_side)
    pixels = picture.view((0, 0, *picture.size), size, "bilinear")
    file = io.BytesIO()
    Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(file, "JPEG", quality=pack.quality)
    return file.getvalue(), size
