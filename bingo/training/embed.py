"""Compute the features of every image, in the listing's order."""

from collections.abc import Iterable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from bingo.data.images import Images
from bingo.data.nvjpeg import EncodedBatch
from bingo.models.batch_norm_folding import fold_batch_norm
from bingo.study.sections import Interpolation, Preprocessing
from bingo.training.distributed import compute_shared
from bingo.training.loader import load
from bingo.views.apply import centre_crop, normalise

EMBED_BATCH = 256
CPU_FORWARD_BATCH = 32
"""Batch size of the forward pass on a CPU; larger batches are not faster and need more memory."""


class CentreViews:
    """Batches of centre crops, in order."""

    def __init__(
        self,
        images: Images,
        preprocessing: Preprocessing,
        interpolation: Interpolation,
        rows: range | NDArray[np.int64] | None = None,
    ) -> None:
        """Describe the batches of all images, or of those at ``rows``, without reading them."""
        self.images, self.preprocessing, self.interpolation = images, preprocessing, interpolation
        self.rows = range(len(images.listing)) if rows is None else rows

    def __len__(self) -> int:
        """Return the number of batches."""
        return -(-len(self.rows) // EMBED_BATCH)

    def __getitem__(self, batch: int) -> Tensor | EncodedBatch:
        """Return batch number ``batch``: uint8 (B, 3, S, S), or encoded images for nvJPEG.

        Raises:
            BingoError: an image cannot be read.
        """
        rows = self.rows[batch * EMBED_BATCH : (batch + 1) * EMBED_BATCH]
        images = self.images.fetch(np.asarray(rows))
        if self.preprocessing.decoder == "nvjpeg" and not isinstance(images, Tensor):
            return EncodedBatch(images)
        # The channels of grey images share memory, which pinned memory does not support.
        return centre_crop(images, self.preprocessing, self.interpolation).contiguous()


def embed(
    network: nn.Module,
    images: Images,
    preprocessing: Preprocessing,
    device: torch.device,
    workers: int,
    interpolation: Interpolation,
    rows: range | None = None,
) -> Iterator[Tensor]:
    """Yield the outputs of ``network`` for the centre crops of all images or ``rows``, batch by batch: float32 (B, D).

    The network must be on ``device`` and in eval mode. It always runs in float32, so that results do not depend on the
    machine's precision. Batch norm is folded into the preceding layers, which changes the rounding.

    Several processes share the batches. Rank 0 gets all outputs; the others get none.

    Raises:
        BingoError: an image cannot be read.
    """
    views = CentreViews(images, preprocessing, interpolation, rows)

    def compute(batches: Iterable[int]) -> Iterator[Tensor]:
        return embed_alone(network, views, batches, device, workers)

    yield from compute_shared(range(len(views)), compute)


@torch.inference_mode()
def embed_alone(
    network: nn.Module, views: CentreViews, indices: Iterable[int], device: torch.device, workers: int
) -> Iterator[Tensor]:
    """Like `embed`, for the batches ``indices`` of ``views`` and in this process only.

    Raises:
        BingoError: an image cannot be read.
    """
    network = fold_batch_norm(network)
    for batch in load(views, indices, workers):
        if isinstance(batch, EncodedBatch):
            pixels = batch.centres(views.preprocessing, views.interpolation, device)  # (B, 3, S, S)
        else:
            pixels = batch.to(device)
        parts = pixels.split(CPU_FORWARD_BATCH if device.type == "cpu" else EMBED_BATCH)
        yield torch.cat([network(normalise(part / 255, views.preprocessing)) for part in parts]).cpu()
