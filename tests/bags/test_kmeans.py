import numpy as np
import pytest

from bingo.bags import kmeans, neighbours
from bingo.bags.kmeans import assign, cluster_rows, kmeans_bags
from bingo.errors import BingoError
from tests.pretended_gpus import pretend_gpus


def unit_rows(features):
    return features / np.linalg.norm(features, axis=1, keepdims=True)


def separated(count, clusters, dim, seed, noise=0.05):
    """Features about orthogonal directions of any length, and the cluster of each."""
    draw = np.random.default_rng(seed)
    directions = np.linalg.qr(draw.normal(size=(dim, dim)))[0][:clusters]
    cluster = draw.permutation(np.arange(count) % clusters)
    features = directions[cluster] + noise * draw.normal(size=(count, dim)) / np.sqrt(dim)
    return (features * draw.uniform(0.1, 30, size=(count, 1))).astype(np.float32), cluster


def best_similarity(features, bags):
    """Mean cosine of images to their own group's mean direction, which no other centroid betters."""
    features = unit_rows(features.astype(np.float64))
    sums = [features[bags.bag_of == bag].sum(axis=0) for bag in range(len(bags.indptr) - 1)]
    return np.linalg.norm(sums, axis=1).sum() / len(features)


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("clusters", [1, 2, 12])
def test_well_separated_clusters_are_found_exactly(clusters, seed):
    features, cluster = separated(300, clusters, 16, seed)
    bags = kmeans_bags(features, clusters, 20, seed)
    pairs = set(zip(bags.bag_of.tolist(), cluster.tolist(), strict=True))
    assert len(bags.indptr) - 1 == len(pairs) == clusters  # each bag is one cluster, and each cluster one bag
    assert bags.purity(cluster) == 1.0


def test_the_objective_is_the_mean_cosine_to_the_groups_directions_once_nothing_moves():
    # More than 256 images a cluster, of which faiss would take a sample.
    features = np.random.default_rng(0).normal(size=(4000, 6)).astype(np.float32)
    settled = kmeans_bags(features.copy(), 7, 200, 0)
    assert settled.attributes["mean_similarity"] == pytest.approx(best_similarity(features, settled), abs=1e-6)
    hasty = kmeans_bags(features.copy(), 7, 1, 0)
    assert hasty.attributes["mean_similarity"] < best_similarity(features, hasty)
    assert hasty.attributes["mean_similarity"] < settled.attributes["mean_similarity"]


@pytest.mark.parametrize("unit", [64, 4096])
@pytest.mark.parametrize("rounds", [1, 2, 20])
def test_rounds_are_those_of_plain_k_means_from_the_same_start(rounds, unit, monkeypatch):
    monkeypatch.setattr(neighbours, "QUERY_BLOCK", unit)
    features = unit_rows(np.random.default_rng(2).normal(size=(500, 8)).astype(np.float32))
    expected = kmeans.first_centroids(features, 12, 5).astype(np.float64)
    for _ in range(rounds):
        nearest = (features @ expected.T).argmax(axis=1)
        expected = unit_rows(np.stack([features[nearest == cluster].sum(axis=0) for cluster in range(12)]))
    centroids, found = cluster_rows(features, 12, rounds, 5)
    np.testing.assert_allclose(centroids, expected, atol=1e-6)
    np.testing.assert_array_equal(found.cluster, (features @ expected.T).argmax(axis=1))
    sums = np.stack([features[found.cluster == cluster].sum(axis=0, dtype=np.float64) for cluster in range(12)])
    np.testing.assert_allclose(found.sums, sums, atol=1e-9)


def test_first_centroids_are_images_of_a_sample_that_the_seed_draws(monkeypatch):
    features = unit_rows(np.random.default_rng(2).normal(size=(500, 8)).astype(np.float32))
    monkeypatch.setattr(kmeans, "_SAMPLE", 40 * 4 * 8)
    seen = []
    monkeypatch.setattr(kmeans, "take_rows", lambda rows, positions: seen.append(positions) or rows[positions])
    for seed in (0, 0, 1):
        centroids = kmeans.first_centroids(features, 5, seed)
        assert np.abs(centroids[:, None] - features[seen[-1]]).sum(axis=2).min(axis=1).max() < 1e-5
    assert [len(set(positions)) for positions in seen] == [40] * 3
    assert seen[0].tolist() == seen[1].tolist() != seen[2].tolist()


def test_an_empty_cluster_moves_to_the_image_that_fits_worst():
    features = np.eye(4, dtype=np.float32)[[0, 0, 0, 1, 2, 2]]
    found = kmeans.assign(features, np.eye(4, dtype=np.float32)[[0, 3, 2, 3]])
    np.testing.assert_array_equal(found.cluster, [0, 0, 0, 0, 2, 2])
    # Image 3 fits worst; of the others, which fit equally well, image 0 comes first.
    moved = kmeans.update_centroids(features, found)
    np.testing.assert_allclose(
        moved, [[3 / 10**0.5, 1 / 10**0.5, 0, 0], features[3], features[4], features[0]], rtol=1e-6
    )


def test_rounds_end_when_nothing_moves(monkeypatch):
    features, _ = separated(200, 4, 8, seed=0)
    calls = []
    monkeypatch.setattr(kmeans, "assign", lambda *args: calls.append(1) or assign(*args))
    kmeans_bags(features, 4, 1000, 0)
    assert 1 < len(calls) < 20


def test_a_seed_gives_its_clusters_and_another_one_others():
    features = np.random.default_rng(3).normal(size=(200, 4)).astype(np.float32)
    first, again, other = (kmeans_bags(features.copy(), 10, 5, seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first.bag_of, again.bag_of)
    assert first.attributes == again.attributes
    assert (first.bag_of != other.bag_of).any()


def test_the_length_of_features_does_not_count():
    features = np.random.default_rng(4).normal(size=(60, 4)).astype(np.float32)
    # Powers of two, so that not even rounding differs.
    scaled = features * 2.0 ** np.random.default_rng(5).integers(-4, 5, size=(60, 1)).astype(np.float32)
    plain, other = kmeans_bags(features.copy(), 5, 10, 0), kmeans_bags(scaled, 5, 10, 0)
    np.testing.assert_array_equal(plain.bag_of, other.bag_of)


@pytest.mark.parametrize("clusters", [1, 3, 9, 10])
@pytest.mark.parametrize("value", [0, 1])
def test_of_equal_images_empty_clusters_are_dropped(value, clusters):
    bags = kmeans_bags(np.full((10, 3), value, dtype=np.float32), clusters, 5, 0)
    np.testing.assert_array_equal(bags.bag_of, 0)
    np.testing.assert_array_equal(bags.indptr, [0, 10])
    assert bags.attributes["mean_similarity"] == pytest.approx(value, abs=1e-6)


def test_gpus_share_the_images_and_change_nothing(monkeypatch):
    monkeypatch.setattr(neighbours, "QUERY_BLOCK", 16)
    features = np.random.default_rng(3).normal(size=(200, 4)).astype(np.float32)
    expected = kmeans_bags(features, 10, 5, 0)
    calls = pretend_gpus(monkeypatch, 3)
    found = kmeans_bags(features, 10, 5, 0)
    np.testing.assert_array_equal(found.bag_of, expected.bag_of)
    assert found.attributes == expected.attributes
    assert {call.device for call in calls} == {0, 1, 2}


@pytest.mark.parametrize("clusters", [11, 1000])
def test_more_clusters_than_images_are_refused(clusters):
    features = np.random.default_rng(0).normal(size=(10, 3)).astype(np.float32)
    with pytest.raises(BingoError, match=rf"^bags: clusters {clusters} .*\b10\b"):
        kmeans_bags(features, clusters, 5, 0)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_features_that_are_not_finite_are_refused(value):
    features = np.random.default_rng(0).normal(size=(10, 3)).astype(np.float32)
    features[4, 1] = value
    with pytest.raises(BingoError, match=r"^bags: .*finite"):
        kmeans_bags(features, 3, 5, 0)
