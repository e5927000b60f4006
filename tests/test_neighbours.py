import faiss
import numpy as np
import pytest

from bingo import neighbours
from bingo.neighbours import nearest_neighbours, normalise_rows


@pytest.fixture
def vectors():
    draw = np.random.default_rng(0)
    return draw.normal(size=(23, 6)).astype(np.float32), draw.normal(size=(40, 6)).astype(np.float32)


def gathered(queries, bank, k):
    blocks = list(nearest_neighbours(queries, bank, k))
    assert [block[0].start for block in blocks] == [0, *(block[0].stop for block in blocks[:-1])]
    assert blocks[-1][0].stop == len(queries)
    return np.concatenate([block[1] for block in blocks]), np.concatenate([block[2] for block in blocks])


@pytest.mark.parametrize("block", [1, 5, 23, 4096])
@pytest.mark.parametrize("k", [1, 7, 40])
def test_neighbours_are_those_of_an_argsort_whatever_the_block(k, block, vectors, monkeypatch):
    monkeypatch.setattr(neighbours, "UNIT", block)
    queries, bank = vectors
    products = queries.astype(np.float64) @ bank.T.astype(np.float64)
    expected = np.argsort(-products, axis=1)[:, :k]
    similarity, index = gathered(queries, bank, k)
    np.testing.assert_array_equal(index, expected)
    np.testing.assert_allclose(similarity, np.take_along_axis(products, expected, 1), rtol=1e-5, atol=1e-5)


def test_a_gpu_is_asked_for_inner_products_block_by_block_and_its_answer_passed_on(vectors, monkeypatch):
    queries, bank = np.tile(vectors[0], (100, 1)), vectors[1]
    resources, calls, answers = object(), [], []

    def knn_gpu(*args, **kwargs):
        calls.append((args, kwargs))
        answers.append((np.random.rand(len(args[1]), 3), np.random.randint(40, size=(len(args[1]), 3))))
        return answers[-1]

    monkeypatch.setattr(neighbours, "_BLOCK", 10)
    monkeypatch.setattr(neighbours, "_GPU_BLOCKS", 1)
    monkeypatch.setattr(faiss, "get_num_gpus", lambda: 1)
    monkeypatch.setattr(faiss, "StandardGpuResources", lambda: resources, raising=False)
    monkeypatch.setattr(faiss, "knn_gpu", knn_gpu, raising=False)
    blocks = list(nearest_neighbours(queries, bank, 3))

    ends = [block[0].stop for block in blocks]
    assert [block[0].start for block in blocks] == [0, *ends[:-1]]
    assert ends[-1] == len(queries)
    assert len(blocks) > 1
    for (rows, similarity, index), (args, kwargs), answer in zip(blocks, calls, answers, strict=True):
        assert args[0] is resources
        np.testing.assert_array_equal(args[1], queries[rows])
        assert args[2] is bank
        assert args[3:] == (3,)
        assert kwargs == {"metric": faiss.METRIC_INNER_PRODUCT}
        assert similarity is answer[0]
        assert index is answer[1]


def test_the_gpu_function_takes_what_it_is_given():
    # There may be no GPU here, but faiss's wheel has the function, and its signature is no guess.
    import inspect

    parameters = inspect.signature(faiss.knn_gpu).parameters
    assert list(parameters)[:4] == ["res", "xq", "xb", "k"]
    assert "metric" in parameters


def test_rows_are_scaled_to_unit_length_in_place():
    draw = np.random.default_rng(1)
    features = draw.normal(size=(9, 5)).astype(np.float32) * 100
    features[3] = 0
    before = features.copy()
    normalise_rows(features)
    np.testing.assert_allclose(np.linalg.norm(features, axis=1), [1, 1, 1, 0, 1, 1, 1, 1, 1], rtol=1e-6)
    lengths = np.sqrt((before.astype(np.float64) ** 2).sum(1, keepdims=True))
    np.testing.assert_allclose(features * lengths, before, rtol=1e-5)
