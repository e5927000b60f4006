"""Items made by loader workers, in order."""

import traceback
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import torch
from torch.utils.data import DataLoader, Dataset, get_worker_info

from bingo.errors import BingoError
from bingo.training.signals import ignore_end_signals

Place = TypeVar("Place", contravariant=True)
Item = TypeVar("Item", covariant=True)


class Source(Protocol[Place, Item]):
    """Something that makes an item for a place, purely: it may be asked in any process."""

    def __getitem__(self, place: Place, /) -> Item:
        """Return the item at ``place``, or raise a user's fault."""


def load(source: Source[Place, Item], places: Iterable[Place], workers: int) -> Iterator[Item]:
    """Yield the items of ``source`` at ``places``, in this order, made by ``workers`` processes if there are any.

    Raises:
        BingoError: making an item raises it.
    """
    loader = DataLoader(
        _ErrorsAsItems(source),
        sampler=places,
        batch_size=None,
        collate_fn=_unchanged,
        num_workers=workers,
        pin_memory=torch.cuda.is_available(),
        generator=torch.Generator(),  # else it draws from the one that networks draw from
        # A scheduler's signal goes to every process; this one saves its state first, and needs its batches until then.
        worker_init_fn=_outlive_signals,
    )
    for item in loader:
        if isinstance(item, BingoError):
            raise item
        if isinstance(item, _WorkerError):
            raise RuntimeError(f"a loader process failed:\n{item.traceback}")
        yield item


def _outlive_signals(_: int) -> None:
    ignore_end_signals()


@dataclass(frozen=True)
class _WorkerError:
    """A fault of the software, in a worker process."""

    traceback: str


class _ErrorsAsItems(Dataset[Any]):
    """Hands over faults as items: the traceback of one that the DataLoader raises would keep its workers alive.

    At the process's end they would be waited for in vain.
    """

    def __init__(self, source: Source[Any, Any]) -> None:
        self.source = source

    def __getitem__(self, place: Any) -> Any:
        try:
            return self.source[place]
        except BingoError as error:
            return error
        except Exception:
            if get_worker_info() is None:
                raise
            return _WorkerError(traceback.format_exc())


def _unchanged(item: Any) -> Any:
    """Pass a ready item through: collation for sources that make whole batches."""
    return item
