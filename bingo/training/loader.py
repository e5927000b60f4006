"""Load items in worker processes, in order."""

import traceback
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import torch
from torch.utils.data import DataLoader, Dataset, get_worker_info

from bingo.errors import BingoError
from bingo.training.signals import ignore_end_signals

Index = TypeVar("Index", contravariant=True)
Item = TypeVar("Item", covariant=True)


class Source(Protocol[Index, Item]):
    """Maps an index to an item. A pure function, so that any process can compute it."""

    def __getitem__(self, index: Index, /) -> Item:
        """Return the item at ``index``, or raise a BingoError."""


def load(source: Source[Index, Item], indices: Iterable[Index], workers: int) -> Iterator[Item]:
    """Yield the items of ``source`` at ``indices``, in order, computed by ``workers`` processes (0: this process).

    Raises:
        BingoError: raised by ``source``.
    """
    loader = DataLoader(
        _ErrorsAsItems(source),
        sampler=indices,
        batch_size=None,
        collate_fn=_unchanged,
        num_workers=workers,
        pin_memory=torch.cuda.is_available(),
        generator=torch.Generator(),  # the global generator is for the networks
        # A scheduler signals every process. The workers must go on until the main process has saved its state.
        worker_init_fn=_ignore_signals,
    )
    for item in loader:
        if isinstance(item, BingoError):
            raise item
        if isinstance(item, _WorkerError):
            raise RuntimeError(f"a loader worker failed:\n{item.traceback}")
        yield item


def _ignore_signals(_: int) -> None:
    ignore_end_signals()


@dataclass(frozen=True)
class _WorkerError:
    """An unexpected exception in a worker process."""

    traceback: str


class _ErrorsAsItems(Dataset[Any]):
    """Returns exceptions as items.

    If the DataLoader raised them, the traceback would keep its workers alive, and the process would hang at exit.
    """

    def __init__(self, source: Source[Any, Any]) -> None:
        self.source = source

    def __getitem__(self, index: Any) -> Any:
        try:
            return self.source[index]
        except BingoError as error:
            return error
        except Exception:
            if get_worker_info() is None:
                raise
            return _WorkerError(traceback.format_exc())


def _unchanged(item: Any) -> Any:
    """Do not collate: the items are complete batches."""
    return item
