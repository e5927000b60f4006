"""What every criterion needs of its settings and features, refused in the same words."""

import numpy as np
from numpy.typing import NDArray

from bingo.errors import BingoError
from bingo.neighbours import normalise_rows


def require_images(setting: str, value: int, needed: int, count: int) -> None:
    """Refuse a setting that ``count`` images are too few for.

    Raises:
        BingoError: ``needed`` is more than ``count``.
    """
    if needed > count:
        raise BingoError(f"bags: {setting} {value} needs at least {needed} images, but there are {count}; lower it")


def scale_features(features: NDArray[np.float32]) -> None:
    """Scale each row of (N, D) to unit length, in place; rows of zeros stay.

    Raises:
        BingoError: a value is not finite.
    """
    normalise_rows(features)
    if not np.isfinite(features.min()) or not np.isfinite(features.max()):
        raise BingoError(
            "bags: the embeddings hold values that are not finite; train the teacher with a lower learning rate"
        )
