"""Bags from spherical k-means: Lloyd's algorithm over blocks of images, with assignments by faiss."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bingo.bags.bags import Bags
from bingo.bags.checks import require_images
from bingo.bags.groups import group_bags
from bingo.bags.neighbours import Floats, RowSource, Search, UnitRows, query_blocks, take_rows
from bingo.philox import Stream, permutation
from bingo.progress import Progress

_SAMPLE = 256 << 20
"""Bytes of the sample for initial centroids as float32. It has at least 3 images per cluster."""


class Assignment(NamedTuple):
    """Assignment of N images to K centroids."""

    cluster: NDArray[np.int64]
    """(N,) centroid with the largest inner product; the first one among ties."""
    similarity: Floats
    """(N,) inner product with that centroid."""
    sums: NDArray[np.float64]
    """(K, D) sum of the images of each centroid."""


def kmeans_bags(features: RowSource, clusters: int, iterations: int, seed: int) -> Bags:
    """Return one bag per cluster. An image belongs to the centroid with the largest cosine similarity.

    BINGO minimises the mean of -v_i . c_q(i) over images v_i and centroids c. The attribute ``mean_similarity`` is
    its negative. Empty clusters are dropped.

    Args:
        features: (N, D), read once per iteration.
        clusters: number of clusters K, 1 to N.
        iterations: maximum number of iterations; stops early once the centroids no longer change.
        seed: seed of the initial centroids, below 2**31.

    Raises:
        BingoError: there are more clusters than images, or a feature is not finite.
    """
    require_images("clusters", clusters, clusters, len(features))
    assignment = cluster_rows(UnitRows(features), clusters, iterations, seed)[1]
    bags = group_bags(assignment.cluster)
    bags.attributes["mean_similarity"] = float(assignment.similarity.mean(dtype=np.float64))
    return bags


def cluster_rows(rows: RowSource, clusters: int, iterations: int, seed: int) -> tuple[Floats, Assignment]:
    """Cluster unit vectors (N, D): return K unit-length centroids (K, D) and the assignment of the rows.

    Memory: three (K, D) arrays (two float32, one float64), one block of rows per GPU, and the initial sample.
    """
    centroids = first_centroids(rows, clusters, seed)
    with Progress("k-means", iterations + 1, "rounds") as progress:
        for _ in range(iterations):
            assignment = assign(rows, centroids)
            progress.advance(1)
            updated = update_centroids(rows, assignment)
            if np.array_equal(updated, centroids):
                return centroids, assignment
            centroids = updated
        return centroids, assign(rows, centroids)


def first_centroids(rows: RowSource, clusters: int, seed: int) -> Floats:
    """Draw rows as initial centroids (K, D) by AFK-MC2, from a random sample if there are many rows.

    Like k-means++, AFK-MC2 rarely puts two centroids into one cluster, but it does not read all images per centroid.
    """
    import faiss

    count, dim = rows.shape
    sample_size = max(_SAMPLE // (4 * dim), 3 * clusters)
    if count <= sample_size:
        sample = rows[:]
    else:
        sample = take_rows(rows, permutation(seed, Stream.CENTROID, 0, count)[:sample_size])
    kmeans: Any = faiss.Kmeans(
        dim,
        clusters,
        niter=0,
        spherical=True,
        seed=seed,
        init_method=faiss.ClusteringInitMethod_AFK_MC2,
        max_points_per_centroid=len(sample),  # faiss must not subsample again
        min_points_per_centroid=1,  # silences faiss's warning about small clusters
    )
    kmeans.train(sample)
    return kmeans.centroids


def assign(rows: RowSource, centroids: Floats) -> Assignment:
    """Assign each row (N, D) to a centroid (K, D). The order of summation does not depend on the number of GPUs."""
    search, parts = Search(1), query_blocks(range(len(rows)))
    assignment = Assignment(np.empty(len(rows), np.int64), np.empty(len(rows), np.float32), np.zeros(centroids.shape))
    for first in range(0, len(parts), search.engines):
        group = parts[first : first + search.engines]  # one block per GPU
        blocks = [rows[part] for part in group]  # (b, D) each
        for part, block, (similarity, nearest) in zip(group, blocks, search(blocks, centroids, 1), strict=True):
            assignment.cluster[part], assignment.similarity[part] = nearest[:, 0], similarity[:, 0]
            order = np.argsort(nearest[:, 0], kind="stable")
            clusters, starts = np.unique(nearest[order, 0], return_index=True)
            assignment.sums[clusters] += np.add.reduceat(block[order], starts, axis=0, dtype=np.float64)
    return assignment


def update_centroids(rows: RowSource, assignment: Assignment) -> Floats:
    """Return the normalised means of the clusters, (K, D). An empty cluster moves to an image that fits badly.

    The images least similar to their centroids replace the centroids of empty clusters, in order; ties go to the
    first image.
    """
    norms = np.linalg.norm(assignment.sums, axis=1, keepdims=True)  # (K, 1)
    centroids = assignment.sums / np.maximum(norms, np.finfo(np.float64).tiny)
    empty = np.setdiff1d(np.arange(len(centroids)), assignment.cluster)
    if len(empty):
        worst = np.argsort(assignment.similarity, kind="stable")[: len(empty)]
        centroids[empty] = take_rows(rows, worst)
    return centroids.astype(np.float32)
