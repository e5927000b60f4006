"""Approximate nearest neighbours: an inverted file of float16 vectors, looked up in a few of its lists."""

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
"""Bytes of images on which lists are trained, as float32, or as many as three a list take; 64 a list at most."""
_ROUNDS = 10


def ivf_neighbours(features: UnitRows, k: int, settings: Ivf, rows: range) -> Iterator[Block]:
    """Yield, unit after unit of some rows, their ``k`` nearest rows among those of the probed lists.

    Beside the sample, of N x D x 2 bytes and N x 8 for positions, on the first GPU where faiss finds one. Similarities
    are those to vectors rounded to float16.

    Args:
        features: (N, D) of unit length.
        k: 1 to N.
        settings: lists, 1 to N, and how many are looked into.
        rows: which rows, from a multiple of `bingo.bags.neighbours.QUERY_BLOCK` on.

    Yields:
        Rows of ``features``, similarity (b, k) falling, position (b, k); -1 where the lists hold fewer.

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
        similarity, found = index.search(features[part], k)
        yield part, similarity, found


def _train(features: UnitRows, settings: Ivf, k: int) -> Any:
    """Return an empty index whose lists belong to centroids of a random sample."""
    import faiss

    count, dim = features.shape
    most = min(64 * settings.lists, max(_SAMPLE // (4 * dim), 3 * settings.lists))
    sample = take_rows(features, np.sort(permutation(0, Stream.CENTROID, 0, count)[:most]))
    quantizer = faiss.IndexFlatIP(dim)
    quantizer.add(cluster_rows(sample, settings.lists, _ROUNDS, 0)[0])
    index: Any = faiss.IndexIVFScalarQuantizer(
        quantizer, dim, settings.lists, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT, False
    )
    index.train(sample[:1])  # lists are those of the quantizer, and float16 has nothing to learn
    if faiss.get_num_gpus() > 0 and max(k, settings.probes) <= MAX_GPU_NEIGHBOURS:
        index = faiss.index_cpu_to_gpu(faiss.StandardGpuResources(), 0, index)
    index.nprobe = settings.probes
    return index
