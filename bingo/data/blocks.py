"""Many images' bytes in one HDF5 file, end to end in blocks, so that each is found by its place in the file.

A group holds `block/0`, `block/1`, ..., contiguous uint8 of `BLOCK` bytes at most (more only where one image alone is
larger), and `first` (blocks,) int64, the first image of each. Readers need no HDF5 for an image, only `os.pread`.
"""

from collections.abc import Iterable

import h5py
import numpy as np
from numpy.typing import NDArray

from bingo.artifacts.hdf5 import checked_dataset

BLOCK = 64 * 2**20


def write_blocks(group: h5py.Group, contents: Iterable[bytes]) -> None:
    """Store ``contents``; one block is held in memory."""
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
    """Return where in the file each image begins: (N,), given how many bytes each has: (N,).

    Raises:
        ValueError: the blocks are not those of such images.
    """
    first, start = group["first"][:], np.cumsum(nbytes) - nbytes
    if first.dtype != np.int64 or first.ndim != 1 or first[0] != 0 or (np.diff(first, append=len(nbytes)) < 1).any():
        raise ValueError("its blocks are out of order")
    offset = np.empty_like(nbytes)
    for number, (low, high) in enumerate(zip(first, [*first[1:], len(nbytes)], strict=True)):
        block, length = group[f"block/{number}"], nbytes[low:high].sum()
        fits = isinstance(block, h5py.Dataset) and block.dtype == np.uint8 and block.shape == (length,)
        if not fits or (place := block.id.get_offset()) is None:
            raise ValueError(f"block {number} does not hold its images")
        offset[low:high] = start[low:high] - start[low] + place
    return offset
