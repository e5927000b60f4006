"""Exact nearest neighbours by inner product, streamed in blocks, on all GPUs that faiss finds or else on the CPU.

Neither queries nor bank need fit into memory: both are anything that gives a block of rows for a slice, an array or an
HDF5 dataset.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from bingo.errors import BingoError

QUERY_BLOCK = 16_384
"""Queries looked up in one call, counted from row 0: a row's result never depends on how queries are shared out."""
MAX_GPU_NEIGHBOURS = 2048
"""Neighbours that faiss can select on a GPU; more are looked up on the CPU."""
_ALIGNED = 1024
"""Rows of a chunk of embeddings, and of the blocks in which faiss multiplies: larger ones are not faster."""

Floats = NDArray[np.float32]
Neighbours = tuple[Floats, NDArray[np.int64]]
Block = tuple[slice, Floats, NDArray[np.int64]]
Engine = Callable[[list[Floats], Floats, int], list[Neighbours]]
"""From units of queries, a bank and k to what is found for each unit."""


class MemoryBudget(NamedTuple):
    """Bytes that a search holds beside its arguments."""

    queries: int
    """Queries as float32 and what is found for them; one QUERY_BLOCK at least."""
    bank: int
    """A block of the bank as float32, for up to 5 neighbours; as much more for more, up to `most`. Two are held."""
    most: int
    """Bytes of a block for any number of neighbours; `bank` at least."""

    def block(self, k: int) -> int:
        """Return the bytes of a block for ``k`` neighbours, 1 or more."""
        return min(self.bank * max(1, k // 5), self.most)


# Little, for faiss multiplies small blocks anyway: larger ones are not faster, but where much is selected in each.
CPU = MemoryBudget(queries=32 << 20, bank=4 << 20, most=128 << 20)
GPU = MemoryBudget(queries=4 << 30, bank=512 << 20, most=512 << 20)
"""On the host, for all GPUs together; each GPU holds a QUERY_BLOCK of queries, a bank block and faiss's 1.5 GiB."""


class RowSource(Protocol):
    """N rows of D numbers, read where they are asked for."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, D)."""

    def __len__(self) -> int:
        """Return N."""

    def __getitem__(self, rows: Any, /) -> Any:
        """Return a block (b, D) for a slice."""


class UnitRows:
    """Rows scaled to unit length, as float32, whenever a block is read; rows of zeros stay."""

    def __init__(self, source: RowSource) -> None:
        """Describe the rows; nothing is read yet."""
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
        for low in range(0, len(block), _ALIGNED):  # so that nothing of the block's size is held beside it
            part = block[low : low + _ALIGNED]
            part[:] = self.source[start + low : start + low + len(part)]
            if not np.isfinite(normalise_rows(part)).all():
                raise BingoError(
                    "bags: the embeddings hold values that are not finite; train the teacher with a lower learning rate"
                )
        return block


class Search:
    """Looks up nearest neighbours of units of queries in a bank that fits into memory."""

    def __init__(self, k: int) -> None:
        """Find the GPUs; ``k`` is the largest number of neighbours that will be asked for."""
        import faiss

        faiss.cvar.distance_compute_blas_query_bs = _ALIGNED  # as fast as 4,096, with a quarter of the memory
        gpus = faiss.get_num_gpus() if k <= MAX_GPU_NEIGHBOURS else 0
        self.budget = GPU if gpus else CPU
        self._engines: list[Engine] = [_look_up]
        if gpus:
            self._engines = [partial(_look_up_on_gpu, faiss.StandardGpuResources(), device) for device in range(gpus)]

    @property
    def engines(self) -> int:
        """Number of GPUs, or 1."""
        return len(self._engines)

    def __call__(self, units: list[Floats], bank: Floats, k: int) -> list[Neighbours]:
        """Return similarity (b, k) and position in ``bank`` (b, k) for each unit (b, D); GPUs share the units out."""
        count = len(self._engines)
        if count == 1:
            return self._engines[0](units, bank, k)
        found: list[Any] = [None] * len(units)
        with ThreadPoolExecutor(count) as threads:
            shares = [
                threads.submit(engine, units[number::count], bank, k) for number, engine in enumerate(self._engines)
            ]
            for number, share in enumerate(shares):
                found[number::count] = share.result()
        return found


def _look_up(units: list[Floats], bank: Floats, k: int) -> list[Neighbours]:
    """Return similarity and position in ``bank`` (N, D), (b, k) each, for each unit (b, D)."""
    import faiss

    return [faiss.knn(unit, bank, k, metric=faiss.METRIC_INNER_PRODUCT) for unit in units]


def _look_up_on_gpu(resources: Any, device: int, units: list[Floats], bank: Floats, k: int) -> list[Neighbours]:
    """Do the same on a GPU, to which the bank goes once for all units."""
    import faiss

    if not units:
        return []
    place = faiss.GpuIndexFlatConfig()
    place.device = device
    index: Any = faiss.GpuIndexFlatIP(resources, bank.shape[1], place)
    index.add(bank)
    return [index.search(unit, k) for unit in units]


def query_blocks(rows: range) -> list[slice]:
    """Cut rows into units; ``rows`` begins at a multiple of QUERY_BLOCK."""
    return [slice(low, min(low + QUERY_BLOCK, rows.stop)) for low in range(rows.start, rows.stop, QUERY_BLOCK)]


def nearest_neighbours(
    queries: RowSource, bank: RowSource, k: int, rows: range | None = None, budget: MemoryBudget | None = None
) -> Iterator[Block]:
    """Yield, unit after unit of queries, their ``k`` nearest rows of ``bank`` by inner product.

    Similarities fall along each row, and among equal ones positions rise; where more than 2,048 rows of a block are
    equally similar, any of them stand last. Blocks and the number of GPUs do not change the result beyond the rounding
    of float32, by which rows that are alike may change places.

    Args:
        queries: (Q, D) float32.
        bank: (N, D) float32, all finite.
        k: 1 to N.
        rows: which queries, from a multiple of QUERY_BLOCK on; all by default.
        budget: bytes to hold, `CPU` or `GPU` by default. The bank is read once for each `MemoryBudget.queries`.

    Yields:
        Rows of ``queries``, similarity (b, k), position in ``bank`` (b, k).
    """
    search = Search(k + 1)
    budget = budget or search.budget
    width = bank.shape[1]
    held = max(1, budget.queries // (QUERY_BLOCK * (4 * width + 24 * k)))
    parts = query_blocks(range(len(queries)) if rows is None else rows)
    for first in range(0, len(parts), held):
        some = parts[first : first + held]
        # The units are gone before the next ones are read.
        step = budget.block(k) // (4 * width)
        best = _best(search, [queries[part] for part in some], bank, k, step)
        for part, (similarity, index) in zip(some, best, strict=True):
            yield part, similarity, index


def _best(search: Search, blocks: list[Floats], bank: RowSource, k: int, step: int) -> list[Neighbours]:
    """Return similarity and position (b, k) for units of queries (b, D); ``step`` rows of the bank are read at once."""
    best = [(np.full((len(block), k), -np.inf, np.float32), np.full((len(block), k), -1)) for block in blocks]
    for start, block in _blocks(bank, step):
        for kept, unit, found in zip(best, blocks, search(blocks, block, min(k + 1, len(block))), strict=True):
            tied = _tied(kept, found)
            _merge(kept, np.flatnonzero((found[0][:, 0] > kept[0][:, -1]) & ~tied), found, start)
            for some in np.split(np.flatnonzero(tied), range(_ALIGNED, tied.sum(), _ALIGNED)):
                if len(some):
                    [wide] = search([unit[some]], block, min(max(k + 1, MAX_GPU_NEIGHBOURS), len(block)))
                    _merge(kept, some, wide, start)
        del block  # while the next but one is read
    return best


def _blocks(bank: RowSource, most: int) -> Iterator[tuple[int, Floats]]:
    """Yield each block's first row and the block, of at most ``most`` rows; the next is read meanwhile."""
    step = max(1, most // _ALIGNED * _ALIGNED or most)
    with ThreadPoolExecutor(1) as reader:
        starts = range(0, len(bank), step)
        coming = reader.submit(bank.__getitem__, slice(0, step))
        for start in starts:
            block = coming.result()
            if start + step < len(bank):
                coming = reader.submit(bank.__getitem__, slice(start + step, start + 2 * step))
            yield start, block
            del block


def _tied(kept: Neighbours, found: Neighbours) -> NDArray[np.bool_]:
    """Tell for which queries faiss may have left out a row as similar as the last that is wanted: (b,).

    It keeps any of several equal ones. Those no better than what is kept do not count.
    """
    k = kept[0].shape[1]
    last = found[0][:, -1]
    return (
        (found[0][:, k - 1] == last) & (last > kept[0][:, -1]) if found[0].shape[1] > k else np.zeros(len(last), bool)
    )


def _merge(kept: Neighbours, rows: NDArray[np.int64], found: Neighbours, start: int) -> None:
    """Put what was found for some queries in a later block of the bank among the best so far, in place.

    Args:
        kept: similarity and position (b, k) of all queries of a unit.
        rows: (c,) the queries.
        found: similarity and position in the block of all queries, or of ``rows`` alone.
        start: the block's first row.
    """
    own = slice(None) if len(found[0]) == len(rows) else rows
    similarity = np.concatenate([kept[0][rows], found[0][own]], axis=1)
    index = np.concatenate([kept[1][rows], found[1][own] + start], axis=1)
    best = np.lexsort((index, -similarity))[:, : kept[0].shape[1]]
    kept[0][rows] = np.take_along_axis(similarity, best, 1)
    kept[1][rows] = np.take_along_axis(index, best, 1)


def take_rows(source: RowSource, positions: NDArray[np.int64]) -> Floats:
    """Return the rows at ``positions`` (b,) in their order, reading ``source`` once from end to end: float32 (b, D)."""
    taken = np.empty((len(positions), source.shape[1]), dtype=np.float32)
    order = np.argsort(positions, kind="stable")
    for part in query_blocks(range(len(source))):
        low, high = np.searchsorted(positions, (part.start, part.stop), sorter=order)
        if low < high:
            taken[order[low:high]] = source[part][positions[order[low:high]] - part.start]
    return taken


def normalise_rows(features: Floats) -> Floats:
    """Scale each row of (N, D) to unit length, in place and without a copy; rows of zeros stay. Return lengths (N,)."""
    norms = np.sqrt(np.einsum("nd,nd->n", features, features))
    with np.errstate(invalid="ignore"):  # what is not finite stays so, for the caller to refuse
        features /= np.where(norms > 0, norms, 1)[:, None]
    return norms
