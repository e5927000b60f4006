"""Bags of clusters, found by spherical k-means with faiss."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from bingo.bags.bags import Bags
from bingo.bags.checks import require_images, scale_features
from bingo.bags.groups import group_bags
from bingo.neighbours import nearest_neighbours
from bingo.progress import Progress


def kmeans_bags(features: NDArray[np.float32], clusters: int, iterations: int, seed: int) -> Bags:
    """Return a bag for each cluster: each image belongs to the centroid with the largest cosine similarity.

    BINGO minimises the mean of -v_i . c_q(i) over images v_i and centroids c; without the sign it is the attribute
    ``mean_similarity``. Clusters that end empty are dropped.

    Args:
        features: (N, D) float32, scaled to unit length in place.
        clusters: 1 to N.
        iterations: rounds of assigning images and moving centroids, at most; fewer where nothing moves any more.
        seed: of the initial centroids, below 2**31.

    Raises:
        BingoError: there are more clusters than images, or features hold a value that is not finite.
    """
    count = len(features)
    require_images("clusters", clusters, clusters, count)
    scale_features(features)
    centroids = find_centroids(features, clusters, iterations, seed)
    cluster = np.empty(count, dtype=np.int64)
    total = 0.0
    with Progress("bags", count, "images") as progress:
        for rows, similarity, nearest in nearest_neighbours(features, centroids, 1):
            cluster[rows] = nearest[:, 0]
            total += float(similarity.sum(dtype=np.float64))
            progress.advance(rows.stop - rows.start)
    bags = group_bags(cluster)
    bags.attributes["mean_similarity"] = total / count
    return bags


def find_centroids(features: NDArray[np.float32], clusters: int, iterations: int, seed: int) -> NDArray[np.float32]:
    """Return centroids of unit length, (clusters, D), of (N, D) features of unit length."""
    import faiss

    kmeans: Any = faiss.Kmeans(
        features.shape[1],
        clusters,
        niter=1,  # a round per call, so that progress shows; the rounds are those of one long call
        spherical=True,
        seed=seed,
        gpu=True,  # where faiss finds one
        # Like k-means++, it seldom starts with two centroids in one cluster, but does not read all images for each.
        init_method=faiss.ClusteringInitMethod_AFK_MC2,
        max_points_per_centroid=len(features),  # all images, no sample of them
        min_points_per_centroid=1,  # or it warns of small clusters
    )
    before: NDArray[np.float32] | None = None
    with Progress("k-means", iterations, "rounds") as progress:
        for _ in range(iterations):
            kmeans.train(features, init_centroids=before)
            progress.advance(1)
            if before is not None and np.array_equal(kmeans.centroids, before):
                break
            before = kmeans.centroids
    return kmeans.centroids
