"""Exact nearest neighbours by inner product, streamed in blocks, on all GPUs that faiss finds or on the CPU.

Neither queries nor bank need to fit into memory. Both can be any source of rows that supports slicing, such as an array
or an HDF5 dataset.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from bingo.errors import BingoError

QUERY_BLOCK = 16_384
"""Queries per faiss call, counted from row 0, so that a row's result does not depend on the split into shards."""
MAX_GPU_NEIGHBOURS = 2048
"""Most neighbours that faiss can select on a GPU; larger k runs on the CPU."""
_ALIGNED = 1024
"""Rows of an HDF5 chunk of embeddings, and of the blocks in which faiss multiplies. Larger blocks are not faster."""

Floats = NDArray[np.float32]
Neighbours = tuple[Floats, NDArray[np.int64]]
Block = tuple[slice, Floats, NDArray[np.int64]]
Engine = Callable[[list[Floats], Floats, int], list[Neighbours]]
"""Maps blocks of queries, a bank and k to the neighbours of each block."""


class MemoryBudget(NamedTuple):
    """Memory of a search in bytes, without its arguments."""

    queries: int
    """Queries (float32) and their results; at least one QUERY_BLOCK is held."""
    bank: int
    """One block of the bank (float32) for up to 5 neighbours; grows with k up to `most`. Two blocks are held."""
    most: int
    """Largest block of the bank for any k, at least `bank`."""

    def block(self, k: int) -> int:
        """Return the bytes of a block of the bank for ``k`` neighbours, 1 or more."""
        return min(self.bank * max(1, k // 5), self.most)


# Small, because faiss multiplies in small blocks anyway. Larger blocks are only faster for a large k.
CPU = MemoryBudget(queries=32 << 20, bank=4 << 20, most=128 << 20)
GPU = MemoryBudget(queries=4 << 30, bank=512 << 20, most=512 << 20)
"""Host memory for all GPUs together. Each GPU holds a QUERY_BLOCK, a block of the bank and 1.5 GiB for faiss."""


class RowSource(Protocol):
    """N rows of D numbers, read on access."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, D)."""

    def __len__(self) -> int:
        """Return N."""

    def __getitem__(self, rows: Any, /) -> Any:
        """Return a block (b, D) for a slice."""


class UnitRows:
    """Rows as float32, L2-normalised when a block is read. Rows of zeros stay zero."""

    def __init__(self, source: RowSource) -> None:
        """Wrap ``source`` without reading it."""
        self.source = source
        self.shape = source.shape

    def __len__(self) -> int:
        """Return N."""
        return len(self.source)

    def __getitem__(self, rows: slice) -> Floats:
        """Return a block (b, D).

        Raises:
            BingoError: a value is not finite.
        """
        start, stop, step = rows.indices(len(self))
        assert step == 1
        block = np.empty((max(stop - start, 0), self.shape[1]), dtype=np.float32)
        for low in range(0, len(block), _ALIGNED):  # in parts, to avoid a second array of the block's size
            part = block[low : low + _ALIGNED]
            part[:] = self.source[start + low : start + low + len(part)]
            if not np.isfinite(normalise_rows(part)).all():
                raise BingoError(
                    "bags: the embeddings hold values that are not finite; train the teacher with a lower learning rate"
                )
        return block


class Search:
    """Nearest-neighbour search for blocks of queries in a bank that fits into memory."""

    def __init__(self, k: int) -> None:
        """Find the GPUs; ``k`` is the largest number of neighbours that will be requested."""
        import faiss

        faiss.cvar.distance_compute_blas_query_bs = _ALIGNED  # as fast as the default 4,096, with 1/4 of the memory
        gpus = faiss.get_num_gpus() if k <= MAX_GPU_NEIGHBOURS else 0
        self.budget = GPU if gpus else CPU
        self._engines: list[Engine] = [_search_on_cpu]
        if gpus:
            self._engines = [partial(_search_on_gpu, faiss.StandardGpuResources(), device) for device in range(gpus)]

    @property
    def engines(self) -> int:
        """Number of GPUs, or 1."""
        return len(self._engines)

    def __call__(self, blocks: list[Floats], bank: Floats, k: int) -> list[Neighbours]:
        """Return similarity (b, k) and position in ``bank`` (b, k) for each block of queries (b, D).

        The blocks are distributed over the GPUs.
        """
        count = len(self._engines)
        if count == 1:
            return self._engines[0](blocks, bank, k)
        neighbours: list[Any] = [None] * len(blocks)
        with ThreadPoolExecutor(count) as threads:
            futures = [
                threads.submit(engine, blocks[number::count], bank, k) for number, engine in enumerate(self._engines)
            ]
            for number, future in enumerate(futures):
                neighbours[number::count] = future.result()
        return neighbours


def _search_on_cpu(blocks: list[Floats], bank: Floats, k: int) -> list[Neighbours]:
    """Return similarity (b, k) and position in ``bank`` (N, D), (b, k), for each block (b, D)."""
    import faiss

    return [faiss.knn(block, bank, k, metric=faiss.METRIC_INNER_PRODUCT) for block in blocks]


def _search_on_gpu(resources: Any, device: int, blocks: list[Floats], bank: Floats, k: int) -> list[Neighbours]:
    """Like `_search_on_cpu`, on a GPU; copies the bank once for all blocks."""
    import faiss

    if not blocks:
        return []
    config = faiss.GpuIndexFlatConfig()
    config.device = device
    index: Any = faiss.GpuIndexFlatIP(resources, bank.shape[1], config)
    index.add(bank)
    return [index.search(block, k) for block in blocks]


def query_blocks(rows: range) -> list[slice]:
    """Split rows into blocks of QUERY_BLOCK; ``rows`` starts at a multiple of QUERY_BLOCK."""
    return [slice(low, min(low + QUERY_BLOCK, rows.stop)) for low in range(rows.start, rows.stop, QUERY_BLOCK)]


def nearest_neighbours(
    queries: RowSource, bank: RowSource, k: int, rows: range | None = None, budget: MemoryBudget | None = None
) -> Iterator[Block]:
    """Yield, for one block of queries after another, their ``k`` nearest rows of ``bank`` by inner product.

    Neighbours are sorted by descending similarity, then by ascending position. If more than 2,048 rows of a block of
    the bank are equally similar, an arbitrary subset of them is kept. Block sizes and the number of GPUs change the
    result only by float32 rounding, which may swap rows of almost equal similarity.

    Args:
        queries: (Q, D) float32.
        bank: (N, D) float32, finite.
        k: number of neighbours, 1 to N.
        rows: the query rows, all by default; start at a multiple of QUERY_BLOCK.
        budget: memory to use, `CPU` or `GPU` by default. The bank is read once per `MemoryBudget.queries` bytes.

    Yields:
        Slice of the query rows, similarity (b, k), position in ``bank`` (b, k).
    """
    search = Search(k + 1)
    budget = budget or search.budget
    width = bank.shape[1]
    blocks_at_once = max(1, budget.queries // (QUERY_BLOCK * (4 * width + 24 * k)))
    parts = query_blocks(range(len(queries)) if rows is None else rows)
    for first in range(0, len(parts), blocks_at_once):
        group = parts[first : first + blocks_at_once]
        step = budget.block(k) // (4 * width)
        # The blocks have no name here, so that they are freed before the next ones are read.
        best = _best(search, [queries[part] for part in group], bank, k, step)
        for part, (similarity, index) in zip(group, best, strict=True):
            yield part, similarity, index


def _best(search: Search, queries: list[Floats], bank: RowSource, k: int, step: int) -> list[Neighbours]:
    """Return similarity and position (b, k) for blocks of queries (b, D), reading ``step`` rows of the bank at once."""
    best = [(np.full((len(block), k), -np.inf, np.float32), np.full((len(block), k), -1)) for block in queries]
    for start, block in _bank_blocks(bank, step):
        for top, query, new in zip(best, queries, search(queries, block, min(k + 1, len(block))), strict=True):
            tied = _tied(top, new)
            _merge(top, np.flatnonzero((new[0][:, 0] > top[0][:, -1]) & ~tied), new, start)
            for rows in np.split(np.flatnonzero(tied), range(_ALIGNED, tied.sum(), _ALIGNED)):
                if len(rows):
                    [wide] = search([query[rows]], block, min(max(k + 1, MAX_GPU_NEIGHBOURS), len(block)))
                    _merge(top, rows, wide, start)
        del block  # frees it before the reader starts on the block after the next
    return best


def _bank_blocks(bank: RowSource, most: int) -> Iterator[tuple[int, Floats]]:
    """Yield first row and rows of each block of at most ``most`` rows, while a thread reads the next block."""
    step = max(1, most // _ALIGNED * _ALIGNED or most)
    with ThreadPoolExecutor(1) as reader:
        starts = range(0, len(bank), step)
        upcoming = reader.submit(bank.__getitem__, slice(0, step))
        for start in starts:
            block = upcoming.result()
            if start + step < len(bank):
                upcoming = reader.submit(bank.__getitem__, slice(start + step, start + 2 * step))
            yield start, block
            del block


def _tied(top: Neighbours, new: Neighbours) -> NDArray[np.bool_]:
    """Tell for which queries faiss may have dropped a row that ties with the k-th neighbour: (b,).

    faiss keeps an arbitrary subset of tied rows. Ties that do not improve on ``top`` do not matter.
    """
    k = top[0].shape[1]
    last = new[0][:, -1]
    return (new[0][:, k - 1] == last) & (last > top[0][:, -1]) if new[0].shape[1] > k else np.zeros(len(last), bool)


def _merge(top: Neighbours, rows: NDArray[np.int64], new: Neighbours, start: int) -> None:
    """Merge the neighbours in one block of the bank into the best so far, in place, for some queries.

    Args:
        top: similarity and position (b, k) of all queries of a block.
        rows: (c,) the queries to update.
        new: similarity and position within the bank's block, of all queries or of ``rows`` only.
        start: first row of the bank's block.
    """
    subset = slice(None) if len(new[0]) == len(rows) else rows
    similarity = np.concatenate([top[0][rows], new[0][subset]], axis=1)
    index = np.concatenate([top[1][rows], new[1][subset] + start], axis=1)
    best = np.lexsort((index, -similarity))[:, : top[0].shape[1]]
    top[0][rows] = np.take_along_axis(similarity, best, 1)
    top[1][rows] = np.take_along_axis(index, best, 1)


def take_rows(source: RowSource, positions: NDArray[np.int64]) -> Floats:
    """Return the rows at ``positions`` (b,), in that order, as float32 (b, D). Reads ``source`` once, sequentially."""
    rows = np.empty((len(positions), source.shape[1]), dtype=np.float32)
    order = np.argsort(positions, kind="stable")
    for part in query_blocks(range(len(source))):
        low, high = np.searchsorted(positions, (part.start, part.stop), sorter=order)
        if low < high:
            rows[order[low:high]] = source[part][positions[order[low:high]] - part.start]
    return rows


def normalise_rows(features: Floats) -> Floats:
    """L2-normalise the rows of (N, D) in place and return their norms (N,). Rows of zeros stay zero."""
    norms = np.sqrt(np.einsum("nd,nd->n", features, features))
    with np.errstate(invalid="ignore"):  # non-finite values stay; the caller reports them
        features /= np.where(norms > 0, norms, 1)[:, None]
    return norms
