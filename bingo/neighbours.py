"""Exact nearest neighbours by inner product, on the GPU where faiss finds one."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

_BLOCK = 4096
_GPU_BLOCKS = 64
"""Each call copies the bank to the GPU, so few large blocks go there."""

Block = tuple[slice, NDArray[np.float32], NDArray[np.int64]]


def nearest_neighbours(queries: NDArray[np.float32], bank: NDArray[np.float32], k: int) -> Iterator[Block]:
    """Yield, block after block of queries, their ``k`` nearest rows of ``bank`` by inner product.

    Beside the arguments, only what one block finds is held.

    Args:
        queries: (Q, D) float32.
        bank: (N, D) float32.
        k: 1 to N.

    Yields:
        Rows of ``queries``, similarity (b, k) falling along each row, position in ``bank`` (b, k).
    """
    import faiss

    resources = faiss.StandardGpuResources() if faiss.get_num_gpus() > 0 else None
    block = _BLOCK if resources is None else _GPU_BLOCKS * _BLOCK
    for start in range(0, len(queries), block):
        rows = slice(start, min(start + block, len(queries)))
        if resources is not None:
            similarity, index = faiss.knn_gpu(resources, queries[rows], bank, k, metric=faiss.METRIC_INNER_PRODUCT)
        else:
            similarity, index = faiss.knn(queries[rows], bank, k, metric=faiss.METRIC_INNER_PRODUCT)
        yield rows, similarity, index


def normalise_rows(features: NDArray[np.float32]) -> None:
    """Scale each row of (N, D) to unit length, in place and without a copy; rows of zeros stay."""
    norms = np.sqrt(np.einsum("nd,nd->n", features, features))
    with np.errstate(invalid="ignore"):  # what is not finite stays so, for the caller to refuse
        features /= np.where(norms > 0, norms, 1)[:, None]
