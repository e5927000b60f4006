"""Bags of exact nearest neighbours against one flat index that is searched at once."""

import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import faiss
import h5py
import numpy as np

from benchmarks.measure import BenchmarkRow, Work, device_name, memory_row, peak_mib, side_by_side
from bingo.artifacts.hdf5 import CHECKED, write_hdf5
from bingo.bags.bags import write_bags
from bingo.bags.knn import find_neighbours, knn_bags
from bingo.bags.neighbours import QUERY_BLOCK
from bingo.philox import Stream, uniform

_IMAGES, _DIM, _SIZE, _CLUSTERS = 50_000, 512, 5, 500
_IMAGENET = (1_281_167, 2048)
_QUERIES = 31 * QUERY_BLOCK
"""Queries that the search holds at once. Searching the rest of ImageNet takes the same time per such block."""


def write_embeddings(path: Path, count: int, dim: int = _DIM) -> None:
    """Write clustered features as the embeddings stage stores them: float16 (count, dim)."""
    centres = uniform(0, Stream.CENTROID, range(_CLUSTERS), 0, 0, dim).astype(np.float32)
    options = {"chunks": (min(count, 1024), dim), **CHECKED}
    with write_hdf5(path, {"kind": "embeddings"}) as file:
        embedding = file.create_dataset("embedding", (count, dim), "float16", **options)
        for start in range(0, count, 1024):
            rows = np.arange(start, min(start + 1024, count))
            embedding[rows[0] : rows[-1] + 1] = centres[rows % _CLUSTERS] + uniform(1, Stream.VIEW, rows, 0, 0, dim) / 2


def blockwise(embeddings: Path, output: Path, size: int) -> None:
    """Find bags as the stage does, from features on disk."""
    with h5py.File(embeddings) as file:
        write_bags(output, knn_bags(file["embedding"], size))


def all_at_once(embeddings: Path, output: Path, size: int) -> None:
    """Find bags as BINGO's released code does: features in memory, each image's neighbours in a list."""
    with h5py.File(embeddings) as file:
        features = file["embedding"][:].astype(np.float32)
    faiss.normalize_L2(features)
    faiss.cvar.distance_compute_blas_query_bs = 4096  # faiss's default; this project sets another value
    index = faiss.IndexFlatL2(features.shape[1])
    if faiss.get_num_gpus():
        index = faiss.index_cpu_to_all_gpus(index)
    index.add(features)
    _, neighbours = index.search(features, size + 1)
    bags: list[list[int]] = [[] for _ in range(len(features))]
    for image in range(len(features)):
        for rank in range(size):
            bags[image].append(neighbours[image, rank + 1])  # the first is the image itself
    np.save(output, np.array(bags))


def rows() -> Iterator[BenchmarkRow]:
    """Measure images per second, and the peak memory of both."""
    device = device_name()
    with tempfile.TemporaryDirectory() as name:
        embeddings, ours, reference = (Path(name, file) for file in ("embeddings.h5", "bags.h5", "bags.npy"))
        write_embeddings(embeddings, _IMAGES)
        for find in (blockwise, all_at_once):
            _prepared(find, Path(name), embeddings)
        work = {
            "ours": partial(blockwise, embeddings, ours, _SIZE),
            "reference": partial(all_at_once, embeddings, reference, _SIZE),
        }
        yield side_by_side(work, 3, warm=True).row("bags", "images/s", device, _IMAGES, "ratio >= 1")
        peaks = [peak_mib(_prepared, find, Path(name), embeddings) for find in (blockwise, all_at_once)]
        yield memory_row("bags-memory", *peaks, device, "ratio <= 1/3")
    if faiss.get_num_gpus():
        import torch

        features = torch.randn(_IMAGENET, dtype=torch.float16, device="cuda").cpu().numpy()
        torch.cuda.empty_cache()
        times = side_by_side({"ours": lambda: find_neighbours(features, _SIZE, "exact", range(_QUERIES))}, 1, warm=True)
        yield times.row("bags-imagenet-gpu", "images/s", device, _QUERIES)
    else:
        yield BenchmarkRow("bags-imagenet-gpu", "images/s", "no GPU")


def _prepared(find: Work, folder: Path, embeddings: Path) -> Work:
    """Return the search after a small one, so that the libraries' fixed memory is not measured."""
    write_embeddings(folder / "few.h5", 2 * _CLUSTERS)
    find(folder / "few.h5", folder / "few.npy", 1)
    return partial(find, embeddings, folder / "many.npy", _SIZE)
