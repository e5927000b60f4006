"""Computing features of every image in the listing's order."""

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
"""Images that go through a network together on a CPU: more are not faster, and their activations take memory."""


class CentreViews:
    """Batches of centre views, in order."""

    def __init__(
        self,
        images: Images,
        preprocessing: Preprocessing,
        interpolation: Interpolation,
        rows: range | NDArray[np.int64] | None = None,
    ) -> None:
        """Describe the batches, of all images or of those at ``rows``; nothing is read yet."""
        self.images, self.preprocessing, self.interpolation = images, preprocessing, interpolation
        self.rows = range(len(images.listing)) if rows is None else rows

    def __len__(self) -> int:
        """Return the number of batches."""
        return -(-len(self.rows) // EMBED_BATCH)

    def __getitem__(self, batch: int) -> Tensor | EncodedBatch:
        """Return uint8 (B, 3, S, S), or files that the device decodes.

        Raises:
            BingoError: an image cannot be read.
        """
        rows = self.rows[batch * EMBED_BATCH : (batch + 1) * EMBED_BATCH]
        images = self.images.fetch(np.asarray(rows))
        if self.preprocessing.decoder == "nvjpeg" and not isinstance(images, Tensor):
            return EncodedBatch(images)
        # The channels of grey images are one; what waits for a GPU in pinned memory must have its own.
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
    """Yield ``network``'s float32 output for the centre view of every image or of ``rows``, batch by batch, in order.

    Several processes share the batches; the first one gets all outputs, the others none. The network is taken as it
    is: the caller has put it on ``device`` and into eval mode. It runs in float32 on any hardware, so that measured
    numbers do not depend on the machine's number formats; batch-norm is folded into the layers before it, which
    rounds differently.

    Raises:
        BingoError: an image cannot be read.
    """
    views = CentreViews(images, preprocessing, interpolation, rows)

    def compute(places: Iterable[int]) -> Iterator[Tensor]:
        return embed_alone(network, views, places, device, workers)

    yield from compute_shared(range(len(views)), compute)


@torch.inference_mode()
def embed_alone(
    network: nn.Module, views: CentreViews, places: Iterable[int], device: torch.device, workers: int
) -> Iterator[Tensor]:
    """Yield what `embed` does for the batches at ``places``, all computed by this process.

    Raises:
        BingoError: an image cannot be read.
    """
    network = fold_batch_norm(network)
    for batch in load(views, places, workers):
        if isinstance(batch, EncodedBatch):
            pixels = batch.centres(views.preprocessing, views.interpolation, device)
        else:
            pixels = batch.to(device)
        parts = pixels.split(CPU_FORWARD_BATCH if device.type == "cpu" else EMBED_BATCH)
        yield torch.cat([network(normalise(part / 255, views.preprocessing)) for part in parts]).cpu()
