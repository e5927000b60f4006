"""Random numbers as a pure function of counters (Philox4x32-10).

Source: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011. A counter-based generator has no
state: the numbers for an image depend only on its index, not on earlier draws. They are therefore identical on
any rank, in any worker and after any interruption.
"""

from enum import IntEnum

import numpy as np
from numpy.typing import ArrayLike, NDArray

_MULTIPLIERS = (np.uint64(0xD2511F53), np.uint64(0xCD9E8D57))
_KEY_STEPS = (0x9E3779B9, 0xBB67AE85)
_LOW = np.uint64(0xFFFFFFFF)
_HALF = np.uint64(32)


class Stream(IntEnum):
    """Independent random streams, one per purpose; the second word of the key."""

    VIEW = 0
    ORDER = 1
    MEMBER = 2
    SUBSET = 3
    SHEET = 4
    TEACHER_VIEW = 5
    CUTMIX = 6
    GROUP = 7
    STEP = 8
    LABELS = 9
    SHUFFLE = 10
    CENTROID = 11
    RECALL = 12
    MONITOR = 13


def philox(counter: NDArray[np.uint64], key: tuple[int, int]) -> NDArray[np.uint64]:
    """Return four random 32-bit words for each ``counter`` (..., 4), whose words are below 2**32, under ``key``."""
    c0, c1, c2, c3 = (counter[..., i] for i in range(4))
    k0, k1 = key
    for _ in range(10):
        p0, p1 = _MULTIPLIERS[0] * c0, _MULTIPLIERS[1] * c2
        c0, c1, c2, c3 = (
            (p1 >> _HALF) ^ c1 ^ np.uint64(k0),
            p1 & _LOW,
            (p0 >> _HALF) ^ c3 ^ np.uint64(k1),
            p0 & _LOW,
        )
        k0, k1 = (k0 + _KEY_STEPS[0]) & 0xFFFFFFFF, (k1 + _KEY_STEPS[1]) & 0xFFFFFFFF
    return np.stack([c0, c1, c2, c3], axis=-1)


def uniform(seed: int, stream: Stream, index: ArrayLike, epoch: int, view: int, draws: int) -> NDArray[np.float64]:
    """Return ``draws`` uniform numbers in [0, 1) for each entry of ``index`` (B,): float64 (B, draws).

    ``seed``, ``index``, ``epoch`` and ``view`` must be below 2**32. Each number has 32 random bits.
    """
    rows = np.asarray(index, dtype=np.uint64)
    blocks = -(-draws // 4)
    counter = np.empty((len(rows), blocks, 4), dtype=np.uint64)
    counter[..., 0] = rows[:, None]
    counter[..., 1] = epoch
    counter[..., 2] = view
    counter[..., 3] = np.arange(blocks, dtype=np.uint64)
    words = philox(counter, (seed & 0xFFFFFFFF, int(stream))).reshape(len(rows), blocks * 4)
    return words[:, :draws].astype(np.float64) / 2.0**32


def permutation(seed: int, stream: Stream, epoch: int, n: int, step: int = 0) -> NDArray[np.int64]:
    """Return a random permutation of ``range(n)``: int64 (n,)."""
    return np.argsort(uniform(seed, stream, np.arange(n), epoch, step, 1)[:, 0], kind="stable")
