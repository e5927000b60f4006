"""Approximate nearest neighbours with an inverted-file index (faiss IVF) of float16 vectors."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from bingo.bags.checks import require_images
from bingo.bags.kmeans import cluster_rows
from bingo.bags.neighbours import MAX_GPU_NEIGHBOURS, Block, UnitRows, query_blocks, take_rows
from bingo.philox import Stream, permutation
from bingo.progress import Progress
from bingo.study.bags import Ivf

_SAMPLE = 512 << 20
"""Bytes of the training sample as float32. It has at least 3 and at most 64 images per list."""
_KMEANS_ITERATIONS = 10


def ivf_neighbours(features: UnitRows, k: int, settings: Ivf, rows: range) -> Iterator[Block]:
    """Yield, for one block of rows after another, the ``k`` nearest rows in the probed lists.

    The index takes 2 N D + 8 N bytes, on the first GPU if faiss finds one. Similarities are computed with vectors
    rounded to float16.

    Args:
        features: (N, D) unit vectors.
        k: number of neighbours, 1 to N.
        settings: number of lists, 1 to N, and number of lists to probe.
        rows: the query rows; start at a multiple of `bingo.bags.neighbours.QUERY_BLOCK`.

    Yields:
        Slice of the query rows, similarity (b, k) in descending order, and position (b, k), which is -1 where the
        probed lists contain fewer than k rows.

    Raises:
        BingoError: there are more lists than rows.
    """
    require_images("search.ivf.lists", settings.lists, settings.lists, len(features))
    if not len(rows):
        return
    index = _train(features, settings, k)
    with Progress("index", len(features), "images") as progress:
        for part in query_blocks(range(len(features))):
            index.add(features[part])
            progress.advance(part.stop - part.start)
    for part in query_blocks(rows):
        similarity, position = index.search(features[part], k)
        yield part, similarity, position


def _train(features: UnitRows, settings: Ivf, k: int) -> Any:
    """Return an empty index, with the k-means centroids of a random sample as its lists."""
    import faiss

    count, dim = features.shape
    sample_size = min(64 * settings.lists, max(_SAMPLE // (4 * dim), 3 * settings.lists))
    sample = take_rows(features, np.sort(permutation(0, Stream.CENTROID, 0, count)[:sample_size]))
    quantizer = faiss.IndexFlatIP(dim)
    quantizer.add(cluster_rows(sample, settings.lists, _KMEANS_ITERATIONS, 0)[0])
    index: Any = faiss.IndexIVFScalarQuantizer(
        quantizer, dim, settings.lists, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT, False
    )
    index.train(sample[:1])  # required by faiss; the quantizer is trained already, and float16 needs no training
    if faiss.get_num_gpus() > 0 and max(k, settings.probes) <= MAX_GPU_NEIGHBOURS:
        index = faiss.index_cpu_to_gpu(faiss.StandardGpuResources(), 0, index)
    index.nprobe = settings.probes
    return index
