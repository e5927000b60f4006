from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bingo.data.listing import Listing


class Noise:
    """Square images of random noise in memory."""

    def __init__(self, count: int, size: int) -> None:
        """Draw ``count`` images of ``size`` pixels."""
        self.listing = Listing(
            source="noise",
            root=Path(),
            split="train",
            label=np.zeros(count, np.int64),
            size=np.full((count, 2), size),
            index=np.arange(count),
            paths=None,
            nbytes=None,
            classes=[],
            source_digest="",
            digest="",
        )
        generator = torch.Generator().manual_seed(0)
        self.pixels = torch.randint(256, (count, 3, size, size), dtype=torch.uint8, generator=generator)

    def fetch(self, index: NDArray[np.int64]) -> Tensor:
        """Return the images at ``index`` (B,): uint8 (B, 3, S, S)."""
        return self.pixels[torch.from_numpy(index)]
