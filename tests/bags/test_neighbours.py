import subprocess
import sys

import faiss
import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bingo.bags import neighbours
from bingo.bags.neighbours import MemoryBudget, UnitRows, nearest_neighbours, normalise_rows, take_rows
from bingo.errors import BingoError
from tests.pretended_gpus import pretend_gpus


@pytest.fixture
def vectors():
    draw = np.random.default_rng(0)
    return draw.normal(size=(23, 6)).astype(np.float32), draw.normal(size=(40, 6)).astype(np.float32)


def gathered(queries, bank, k, rows=None, budget=None):
    rows = range(len(queries)) if rows is None else rows
    blocks = list(nearest_neighbours(queries, bank, k, rows, budget))
    assert [block[0].start for block in blocks] == [rows.start, *(block[0].stop for block in blocks[:-1])]
    assert blocks[-1][0].stop == rows.stop
    return np.concatenate([block[1] for block in blocks]), np.concatenate([block[2] for block in blocks])


def small_integers(count, dim, seed):
    """Vectors whose products are exact in float32, many of them equal."""
    return np.random.default_rng(seed).integers(-2, 3, size=(count, dim)).astype(np.float32)


@settings(deadline=None, max_examples=150)
@given(
    queries=st.integers(1, 60),
    count=st.integers(1, 70),
    seed=st.integers(0, 10_000),
    unit=st.integers(1, 70),
    held=st.integers(1, 4000),
    block=st.integers(1, 80),
    data=st.data(),
)
def test_equal_similarities_stand_in_the_order_of_positions_whatever_the_blocks(
    queries, count, seed, unit, held, block, data
):
    k = data.draw(st.integers(1, count))
    first = data.draw(st.integers(0, (queries - 1) // unit)) * unit
    stop = data.draw(st.integers(first + 1, queries))
    xq, xb = small_integers(queries, 3, seed), small_integers(count, 3, seed + 1)
    products = (xq @ xb.T)[first:stop]
    expected = np.argsort(-products, axis=1, kind="stable")[:, :k]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(neighbours, "QUERY_BLOCK", unit)
        similarity, index = gathered(xq, xb, k, range(first, stop), MemoryBudget(held, block * 12, 1 << 20))
    np.testing.assert_array_equal(similarity, np.take_along_axis(products, expected, 1))
    np.testing.assert_array_equal(index, expected)


@pytest.mark.parametrize("gpus", [1, 2, 3])
def test_gpus_share_the_queries_and_change_nothing(gpus, vectors, monkeypatch):
    queries, bank = np.tile(vectors[0], (5, 1)), vectors[1]
    monkeypatch.setattr(neighbours, "QUERY_BLOCK", 10)
    budget = MemoryBudget(
        4 * 10 * (4 * 6 + 24 * 3), 16 * 4 * 6, 16 * 4 * 6
    )  # four units of queries, sixteen rows of the bank
    expected = gathered(queries, bank, 3, budget=budget)
    calls = pretend_gpus(monkeypatch, gpus)
    found = gathered(queries, bank, 3, budget=budget)
    np.testing.assert_array_equal(found[0], expected[0])
    np.testing.assert_array_equal(found[1], expected[1])
    assert {call.device for call in calls} == set(range(gpus))
    assert len({(call.device, call.resources) for call in calls}) == gpus
    assert len({call.resources for call in calls}) == gpus  # each has resources of its own
    assert max(call.queries for call in calls) == 10
    assert {call.bank for call in calls} == {16, 8}


def test_more_neighbours_than_a_gpu_selects_are_looked_up_on_the_cpu(monkeypatch):
    monkeypatch.setattr(faiss, "get_num_gpus", lambda: 1)
    monkeypatch.setattr(faiss, "StandardGpuResources", lambda: pytest.fail("a GPU was asked"))
    bank = np.random.default_rng(0).normal(size=(2100, 2)).astype(np.float32)
    assert gathered(bank[:2], bank, 2049)[1].shape == (2, 2049)


def test_a_file_is_searched_like_the_array_it_holds(tmp_path, monkeypatch):
    monkeypatch.setattr(neighbours, "QUERY_BLOCK", 64)
    features = np.random.default_rng(3).normal(size=(300, 6)).astype(np.float16)
    with h5py.File(tmp_path / "features.h5", "w") as file:
        stored = UnitRows(file.create_dataset("embedding", data=features, chunks=(50, 6), fletcher32=True))
        found = gathered(stored, stored, 4, budget=MemoryBudget(5000, 70 * 24, 70 * 24))
    unit = features.astype(np.float32)
    normalise_rows(unit)
    similarity, index = gathered(unit, unit, 4)
    np.testing.assert_array_equal(found[1], index)
    np.testing.assert_allclose(found[0], similarity, atol=1e-6)


def test_values_that_are_not_finite_are_refused_while_blocks_are_read():
    features = np.ones((3000, 2), dtype=np.float16)
    features[2500, 1] = np.inf
    with pytest.raises(BingoError, match="finite"):
        gathered(features[:5].astype(np.float32), UnitRows(features), 3, budget=MemoryBudget(1, 1024 * 8, 1024 * 8))


@settings(deadline=None, max_examples=50)
@given(count=st.integers(1, 50), unit=st.integers(1, 60), positions=st.lists(st.integers(0, 10_000), max_size=30))
def test_rows_are_taken_in_any_order(count, unit, positions):
    source = np.random.default_rng(count).normal(size=(count, 2)).astype(np.float32)
    chosen = np.array(positions, dtype=np.int64) % count
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(neighbours, "QUERY_BLOCK", unit)
        np.testing.assert_array_equal(take_rows(source, chosen), source[chosen])


_SEARCH = """
import resource, sys
from pathlib import Path
import h5py, numpy as np
from bingo.bags import neighbours
from bingo.bags.knn import knn_bags
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
neighbours.QUERY_BLOCK, neighbours.CPU = 1024, neighbours.MemoryBudget(2 << 20, 2 << 20, 2 << 20)
knn_bags(np.random.default_rng(0).normal(size=(3000, 8)), 5)  # whatever libraries take
before = peak()
with h5py.File(sys.argv[1]) as file:
    bags = knn_bags(file["embedding"], 5)
np.save(sys.argv[2], bags.members)
print(peak() - before)
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_file(tmp_path):
    draw = np.random.default_rng(0)
    features = draw.normal(size=(20, 256))[draw.integers(0, 20, 20_000)] + 0.5 * draw.normal(size=(20_000, 256))
    with h5py.File(tmp_path / "features.h5", "w") as file:
        file.create_dataset("embedding", data=features.astype(np.float16), chunks=(1024, 256), fletcher32=True)
    command = [sys.executable, "-c", _SEARCH, str(tmp_path / "features.h5"), str(tmp_path / "members.npy")]
    grown = int(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
    # The features take 10 MiB as they are stored, 20 MiB as float32; what is found, twice over, 2 MiB.
    assert grown < 17 * 1024
    unit = features.astype(np.float16).astype(np.float32)
    normalise_rows(unit)
    sample = draw.permutation(20_000)[:500]
    _, expected = faiss.knn(unit[sample], unit, 6, metric=faiss.METRIC_INNER_PRODUCT)
    np.testing.assert_array_equal(np.load(tmp_path / "members.npy").reshape(-1, 5)[sample], expected[:, 1:])


def test_rows_are_scaled_to_unit_length_in_place():
    draw = np.random.default_rng(1)
    features = draw.normal(size=(9, 5)).astype(np.float32) * 100
    features[3] = 0
    before = features.copy()
    normalise_rows(features)
    np.testing.assert_allclose(np.linalg.norm(features, axis=1), [1, 1, 1, 0, 1, 1, 1, 1, 1], rtol=1e-6)
    lengths = np.sqrt((before.astype(np.float64) ** 2).sum(1, keepdims=True))
    np.testing.assert_allclose(features * lengths, before, rtol=1e-5)
