"""Bags of clusters, found by spherical k-means: Lloyd's rounds over blocks of images, assigned by faiss."""

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
"""Bytes of images among which initial centroids are drawn, as float32, or as many as three a cluster take."""


class Assignment(NamedTuple):
    """To which of K centroids each of N images belongs."""

    cluster: NDArray[np.int64]
    """(N,) the centroid of the largest inner product, of equal ones the first."""
    similarity: Floats
    """(N,) that inner product."""
    sums: NDArray[np.float64]
    """(K, D) of the images of each."""


def kmeans_bags(features: RowSource, clusters: int, iterations: int, seed: int) -> Bags:
    """Return a bag for each cluster: each image belongs to the centroid with the largest cosine similarity.

    BINGO minimises the mean of -v_i . c_q(i) over images v_i and centroids c; without the sign it is the attribute
    ``mean_similarity``. Clusters that end empty are dropped.

    Args:
        features: (N, D), read once a round.
        clusters: 1 to N.
        iterations: rounds of assigning images and moving centroids, at most; fewer where nothing moves any more.
        seed: of the initial centroids, below 2**31.

    Raises:
        BingoError: there are more clusters than images, or features hold a value that is not finite.
    """
    require_images("clusters", clusters, clusters, len(features))
    found = cluster_rows(UnitRows(features), clusters, iterations, seed)[1]
    bags = group_bags(found.cluster)
    bags.attributes["mean_similarity"] = float(found.similarity.mean(dtype=np.float64))
    return bags


def cluster_rows(rows: RowSource, clusters: int, iterations: int, seed: int) -> tuple[Floats, Assignment]:
    """Return centroids of unit length, (K, D), of rows of unit length, and to which each row belongs.

    Holds K x D numbers thrice (float32, float32, float64), a unit of rows for each GPU, and the initial sample.
    """
    centroids = first_centroids(rows, clusters, seed)
    with Progress("k-means", iterations + 1, "rounds") as progress:
        for _ in range(iterations):
            found = assign(rows, centroids)
            progress.advance(1)
            moved = update_centroids(rows, found)
            if np.array_equal(moved, centroids):
                return centroids, found
            centroids = moved
        return centroids, assign(rows, centroids)


def first_centroids(rows: RowSource, clusters: int, seed: int) -> Floats:
    """Draw rows as initial centroids (K, D) by AFK-MC2, out of a random sample where there are many rows.

    Like k-means++, it seldom starts with two centroids in one cluster, but does not read all images for each.
    """
    import faiss

    count, dim = rows.shape
    most = max(_SAMPLE // (4 * dim), 3 * clusters)
    sample = rows[:] if count <= most else take_rows(rows, permutation(seed, Stream.CENTROID, 0, count)[:most])
    kmeans: Any = faiss.Kmeans(
        dim,
        clusters,
        niter=0,
        spherical=True,
        seed=seed,
        init_method=faiss.ClusteringInitMethod_AFK_MC2,
        max_points_per_centroid=len(sample),  # no sample of the sample
        min_points_per_centroid=1,  # or it warns of small clusters
    )
    kmeans.train(sample)
    return kmeans.centroids


def assign(rows: RowSource, centroids: Floats) -> Assignment:
    """Assign each row of (N, D) to a centroid of (K, D); sums are taken in the order of the rows, whatever the GPUs."""
    search, parts = Search(1), query_blocks(range(len(rows)))
    found = Assignment(np.empty(len(rows), np.int64), np.empty(len(rows), np.float32), np.zeros(centroids.shape))
    for first in range(0, len(parts), search.engines):
        own = parts[first : first + search.engines]
        blocks = [rows[part] for part in own]
        for part, block, (similarity, nearest) in zip(own, blocks, search(blocks, centroids, 1), strict=True):
            found.cluster[part], found.similarity[part] = nearest[:, 0], similarity[:, 0]
            order = np.argsort(nearest[:, 0], kind="stable")
            clusters, starts = np.unique(nearest[order, 0], return_index=True)
            found.sums[clusters] += np.add.reduceat(block[order], starts, axis=0, dtype=np.float64)
    return found


def update_centroids(rows: RowSource, found: Assignment) -> Floats:
    """Return the mean directions of clusters, (K, D); empty clusters move to images that fit worst.

    The images least similar to their centroids, of equal ones the first, become the centroids of empty clusters, in the
    order of these.
    """
    centroids = found.sums / np.maximum(np.linalg.norm(found.sums, axis=1, keepdims=True), np.finfo(np.float64).tiny)
    empty = np.setdiff1d(np.arange(len(centroids)), found.cluster)
    if len(empty):
        worst = np.argsort(found.similarity, kind="stable")[: len(empty)]
        centroids[empty] = take_rows(rows, worst)
    return centroids.astype(np.float32)
