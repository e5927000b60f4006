"""Store the bytes of many images in one HDF5 file, so that each image can be read by its file offset.

A group contains the contiguous uint8 datasets `block/0`, `block/1`, ... and `first` (blocks,) int64, the first image of
each block. A block has at most `BLOCK` bytes, unless it consists of one larger image. Images are read with `os.pread`,
without HDF5.
"""

from collections.abc import Iterable

import h5py
import numpy as np
from numpy.typing import NDArray

from bingo.artifacts.hdf5 import checked_dataset

BLOCK = 64 * 2**20


def write_blocks(group: h5py.Group, contents: Iterable[bytes]) -> None:
    """Store the images ``contents``, holding one block in memory."""
    first, block = [0], bytearray()

    def flush() -> None:
        group.create_dataset(f"block/{len(first) - 1}", data=np.frombuffer(block, np.uint8))

    for image, content in enumerate(contents):
        if block and len(block) + len(content) > BLOCK:
            flush()
            first.append(image)
            block = bytearray()
        block += content
    flush()
    checked_dataset(group, "first", np.array(first, dtype=np.int64))


def locate(group: h5py.Group, nbytes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the file offset of each image: (N,) sizes in bytes to (N,) offsets.

    Raises:
        ValueError: the blocks do not match the sizes.
    """
    first, start = group["first"][:], np.cumsum(nbytes) - nbytes
    if first.dtype != np.int64 or first.ndim != 1 or first[0] != 0 or (np.diff(first, append=len(nbytes)) < 1).any():
        raise ValueError("invalid block index")
    offset = np.empty_like(nbytes)
    for number, (low, high) in enumerate(zip(first, [*first[1:], len(nbytes)], strict=True)):
        block, length = group[f"block/{number}"], nbytes[low:high].sum()
        fits = isinstance(block, h5py.Dataset) and block.dtype == np.uint8 and block.shape == (length,)
        if not fits or (block_offset := block.id.get_offset()) is None:
            raise ValueError(f"block {number} does not contain its images")
        offset[low:high] = start[low:high] - start[low] + block_offset
    return offset
