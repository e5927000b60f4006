"""Exact nearest neighbours by inner product, on the GPU where faiss finds one."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

_BLOCK = 4096

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
    for start in range(0, len(queries), _BLOCK):
        rows = slice(start, min(start + _BLOCK, len(queries)))
        if resources is not None:
            similarity, index = faiss.knn_gpu(resources, queries[rows], bank, k, metric=faiss.METRIC_INNER_PRODUCT)
        else:
            similarity, index = faiss.knn(queries[rows], bank, k, metric=faiss.METRIC_INNER_PRODUCT)
        yield rows, similarity, index


def normalise_rows(features: NDArray[np.float32]) -> None:
    """Scale each row of (N, D) to unit length, in place; rows of zeros stay."""
    norms = np.linalg.norm(features, axis=1, keepdims=True)
    np.divide(features, norms, out=features, where=norms > 0)
