import faiss
import numpy as np
import pytest

from bingo.bags import neighbours
from bingo.bags.ivf import ivf_neighbours
from bingo.bags.knn import find_neighbours, knn_bags
from bingo.bags.neighbours import UnitRows
from bingo.errors import BingoError
from bingo.study.bags import Ivf, IvfSearch
from tests.pretended_gpus import pretend_gpus


def search(lists, probes):
    return IvfSearch(ivf=Ivf(lists=lists, probes=probes))


def clustered(count, dim=12, seed=0):
    draw = np.random.default_rng(seed)
    return (draw.normal(size=(15, dim))[draw.integers(0, 15, count)] + 0.3 * draw.normal(size=(count, dim))).astype(
        "f2"
    )


def overlap(found, exact, size):
    pairs = zip(found.members.reshape(-1, size), exact.members.reshape(-1, size), strict=True)
    return np.mean([len(set(a) & set(b)) / size for a, b in pairs])


@pytest.mark.parametrize("unit", [64, 4096])
def test_all_lists_hold_the_exact_neighbours_but_for_the_rounding_of_vectors(unit, monkeypatch):
    monkeypatch.setattr(neighbours, "QUERY_BLOCK", unit)
    features = clustered(500)
    exact, found = knn_bags(features, 5), knn_bags(features, 5, search(16, 16))
    assert overlap(found, exact, 5) > 0.97
    np.testing.assert_allclose(found.similarity, exact.similarity, atol=2e-3)
    assert (np.diff(found.similarity.reshape(-1, 5), axis=1) <= 0).all()
    assert "recall" not in exact.attributes


def test_recall_is_the_share_of_the_exact_neighbours_and_rises_with_the_lists_that_are_probed():
    features = np.random.default_rng(0).normal(size=(600, 6)).astype("f2")
    exact, recalls = knn_bags(features, 5), []
    for probes in (1, 4, 24):
        found = knn_bags(features, 5, search(24, probes))
        assert found.attributes["recall_sample"] == 600
        assert found.attributes["recall"] == pytest.approx(overlap(found, exact, 5))
        recalls.append(found.attributes["recall"])
    assert recalls[0] < recalls[1] < recalls[2]


def test_no_image_is_its_own_neighbour_and_short_lists_are_made_up_for_by_the_exact_search():
    features = clustered(300)
    found = knn_bags(features, 40, search(60, 1))
    members = found.members.reshape(300, 40)
    assert members.min() >= 0
    assert (members != np.arange(300)[:, None]).all()
    assert all(len(set(row)) == 40 for row in members)
    # Lists of five images on average hold no 40: all are exact.
    np.testing.assert_array_equal(members, knn_bags(features, 40).members.reshape(300, 40))


@pytest.mark.parametrize("probes", [1, 3])
def test_parts_of_the_images_find_what_all_find(probes, monkeypatch):
    monkeypatch.setattr(neighbours, "QUERY_BLOCK", 64)
    features = clustered(300)
    similarity, members = find_neighbours(features, 6, search(20, probes), range(300))
    for rows in (range(128), range(128, 300), range(256, 300), range(0)):
        found = find_neighbours(features, 6, search(20, probes), rows)
        np.testing.assert_array_equal(found[0], similarity[rows.start : rows.stop])
        np.testing.assert_array_equal(found[1], members[rows.start : rows.stop])


def test_a_gpu_takes_the_index_where_faiss_finds_one(monkeypatch):
    features, moved = UnitRows(clustered(300)), []

    def index_cpu_to_gpu(resources, device, index):
        moved.append((device, type(index), index.is_trained, index.ntotal))
        return index

    expected = [found[2] for found in ivf_neighbours(features, 4, Ivf(lists=8, probes=2), range(300))]
    pretend_gpus(monkeypatch, 1)
    monkeypatch.setattr(faiss, "index_cpu_to_gpu", index_cpu_to_gpu)
    found = [found[2] for found in ivf_neighbours(features, 4, Ivf(lists=8, probes=2), range(300))]
    np.testing.assert_array_equal(found, expected)
    assert moved == [(0, faiss.IndexIVFScalarQuantizer, True, 0)]


def test_more_lists_than_images_are_refused():
    with pytest.raises(BingoError, match=r"^bags: search\.ivf\.lists 50 .*\b40\b"):
        knn_bags(clustered(40), 5, search(50, 2))
