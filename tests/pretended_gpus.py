"""GPUs that faiss seems to find, with the CPU in their place."""

from collections import namedtuple

import faiss
import numpy as np

Call = namedtuple("Call", "device resources queries bank")


class Calls(list):
    """Searches of flat indexes, and in `filled` the GPUs that were given a bank, and how many rows."""

    def __init__(self):
        super().__init__()
        self.filled = []


class Resources:
    """In the place of StandardGpuResources; each object is its own."""


def pretend_gpus(monkeypatch, count):
    """Let faiss find ``count`` GPUs; return the list to which every search of a flat index adds what it was asked."""
    calls = Calls()

    class FlatIndex:
        def __init__(self, resources, dim, place):
            assert isinstance(resources, Resources)
            assert place.device in range(count)
            self.resources, self.device, self.bank = resources, place.device, np.empty((0, dim), np.float32)

        def add(self, rows):
            assert rows.dtype == np.float32
            calls.filled.append((self.device, len(rows)))
            self.bank = np.concatenate([self.bank, rows])

        def search(self, queries, k):
            assert queries.dtype == np.float32
            calls.append(Call(self.device, self.resources, len(queries), len(self.bank)))
            return faiss.knn(queries, self.bank, k, metric=faiss.METRIC_INNER_PRODUCT)

    monkeypatch.setattr(faiss, "get_num_gpus", lambda: count)
    monkeypatch.setattr(faiss, "StandardGpuResources", Resources)
    monkeypatch.setattr(faiss, "GpuIndexFlatIP", FlatIndex)
    return calls
