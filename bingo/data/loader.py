"""Batches of views for training: what is drawn depends on seed, epoch and step alone."""

import traceback
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice, product
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, get_worker_info

from bingo.bags.bags import Bags
from bingo.data.images import Images
from bingo.data.nvjpeg import EncodedBatch
from bingo.engine.signals import outlive
from bingo.errors import BingoError
from bingo.methods.method import View
from bingo.philox import Stream, permutation
from bingo.sections import NetworkInput
from bingo.views.apply import crop_each, finish
from bingo.views.parameters import ViewParameters, draw, draw_for_teacher, joined
from bingo.views.recipes import Recipe

Key = TypeVar("Key")
Place = TypeVar("Place", contravariant=True)
Item = TypeVar("Item", covariant=True)


@dataclass(frozen=True)
class ViewPixels:
    """One view of each image of a batch, before what is done on the training device."""

    pixels: Tensor | EncodedBatch
    """uint8: whole images (B, 3, H, W), or crops (B, 3, S, S); or files that the device decodes."""
    cropped: bool
    parameters: ViewParameters


@dataclass(frozen=True)
class Batch:
    """One step of training."""

    epoch: int
    number: int
    """Step within the epoch."""
    rows: dict[str, NDArray[np.int64]]
    """(B,) positions in the listing of the `anchor` images, and of the `positive` ones where any are asked for."""
    views: dict[str, ViewPixels]
    """By the names that the method gives them."""

    def pin_memory(self) -> "Batch":
        """Return the same in memory from which a GPU copies by itself, while others compute."""
        return replace(self, views=pinned(self.views))


class TrainingBatches:
    """Maps (epoch, step) to a batch, purely; loader workers only decide who computes it."""

    def __init__(
        self,
        images: Images,
        views: Mapping[str, View],
        recipe: Recipe,
        preprocessing: NetworkInput,
        batch_size: int,
        seed: int,
        bags: Bags | None,
        stored: int | None = None,
        drop_last: bool = True,
        rank: int = 0,
        processes: int = 1,
    ) -> None:
        """Describe the batches.

        Args:
            images: the training images.
            views: the views that the method needs, by name.
            recipe: how views are drawn.
            preprocessing: size and normalisation of views.
            batch_size: anchors per step, of all processes together.
            seed: seed of order, positives and views, but for those that a teacher sees.
            bags: where positives come from, for methods that ask for any.
            stored: number of stored teacher views, which return after so many epochs, and of which those that only
                the teacher sees are left out; None for a teacher that runs in training.
            drop_last: leave out the incomplete last batch of an epoch.
            rank: which part of each batch to make: the parts of all processes, one after the other, are the batch.
            processes: number of parts, as equal as can be.

        Raises:
            BingoError: there are fewer images than a batch holds.
        """
        if len(images.listing) < batch_size:
            raise BingoError(
                f"batch_size: {batch_size} is more than the {len(images.listing)} training images; lower it"
            )
        self.images, self.recipe, self.preprocessing = images, recipe, preprocessing
        self.views = {name: view for name, view in views.items() if view.student or stored is None}
        self.needs_positives = any(view.image == "positive" for view in views.values())
        self.batch_size, self.seed, self.bags, self.drop_last = batch_size, seed, bags, drop_last
        self.stored, self.rank, self.processes = stored, rank, processes
        self._order: tuple[int, NDArray[np.int64]] | None = None

    @property
    def steps(self) -> int:
        """Steps per epoch."""
        whole, rest = divmod(len(self.images.listing), self.batch_size)
        return whole + (rest > 0 and not self.drop_last)

    def __getitem__(self, place: tuple[int, int]) -> Batch:
        """Return this process's part of the batch of (epoch, step).

        Raises:
            BingoError: an image cannot be read.
        """
        epoch, step = place
        batch = self._order_of(epoch)[step * self.batch_size : (step + 1) * self.batch_size]
        start, end = (len(batch) * rank // self.processes for rank in (self.rank, self.rank + 1))
        rows = {"anchor": batch[start:end]}
        if self.needs_positives:
            assert self.bags is not None
            rows["positive"] = self.bags.draw(rows["anchor"], self.seed, epoch)
        teacher_epoch = epoch if self.stored is None else epoch % self.stored
        parameters = {}
        for name, view in self.views.items():
            index = rows[view.image]
            size = self.images.listing.size[index]
            if view.teacher:
                parameters[name] = draw_for_teacher(self.recipe, index, teacher_epoch, view.number, size)
            else:
                parameters[name] = draw(self.recipe, self.seed, index, epoch, view.number, size)
        views: dict[str, ViewPixels] = {}
        for image, index in rows.items():
            wanted = {name: parameters[name] for name, view in self.views.items() if view.image == image}
            if wanted:
                views |= show(self.images, index, wanted, self.preprocessing, self.recipe)
        return Batch(epoch, step, rows, views)

    def count(self, step: int) -> int:
        """Return the number of images in a step's batch, of all processes together."""
        return min(self.batch_size, len(self.images.listing) - step * self.batch_size)

    def batches(self, start_epoch: int, epochs: int, workers: int, start_step: int = 0) -> Iterator[Batch]:
        """Yield the batches from step ``start_step`` of ``start_epoch`` to the end of ``epochs``, one after the other.

        Raises:
            BingoError: an image cannot be read.
        """
        places = product(range(start_epoch, epochs), range(self.steps))
        yield from load(self, islice(places, start_step, None), workers)

    def render(self, views: Mapping[Key, ViewPixels], device: torch.device) -> dict[Key, Tensor]:
        """Finish views on ``device``: float32 (B, 3, S, S) each, normalised, in channels-last memory."""
        return dict(render(views, self.recipe, self.preprocessing, device))

    def _order_of(self, epoch: int) -> NDArray[np.int64]:
        """Return the order of the images in an epoch: (N,); the last one asked for is kept."""
        if self._order is None or self._order[0] != epoch:
            self._order = epoch, permutation(self.seed, Stream.ORDER, epoch, len(self.images.listing))
        return self._order[1]


def show(
    images: Images,
    index: NDArray[np.int64],
    parameters: Mapping[Key, ViewParameters],
    preprocessing: NetworkInput,
    recipe: Recipe,
) -> dict[Key, ViewPixels]:
    """Return views of the images at ``index`` (B,), one for each of ``parameters``; each image is read once.

    Raises:
        BingoError: an image cannot be read.
    """
    if len(index) == 0:  # this process has no part in a short batch
        nothing = torch.empty(0, 3, preprocessing.size, preprocessing.size, dtype=torch.uint8)
        return {name: ViewPixels(nothing, True, drawn) for name, drawn in parameters.items()}
    source = images.fetch(index)
    if isinstance(source, Tensor):
        return {name: ViewPixels(source, False, drawn) for name, drawn in parameters.items()}
    if preprocessing.decoder == "nvjpeg":
        batch = EncodedBatch(source)
        return {name: ViewPixels(batch, False, drawn) for name, drawn in parameters.items()}
    crops = crop_each(source, list(parameters.values()), preprocessing.size, recipe.interpolation)
    return {name: ViewPixels(crop, True, drawn) for (name, drawn), crop in zip(parameters.items(), crops, strict=True)}


def pinned(views: Mapping[Key, ViewPixels]) -> dict[Key, ViewPixels]:
    """Return the same views, their pixels in memory from which a GPU copies by itself, while others compute."""
    pixels = {id(view.pixels): view.pixels for view in views.values()}  # several views may share theirs
    moved = {key: _pinned(shared) for key, shared in pixels.items()}
    return {name: replace(view, pixels=moved[id(view.pixels)]) for name, view in views.items()}


def _pinned(pixels: Tensor | EncodedBatch) -> Tensor | EncodedBatch:
    if isinstance(pixels, EncodedBatch):
        return pixels
    return pixels[:, :1].pin_memory().expand(-1, 3, -1, -1) if _one_for_three(pixels) else pixels.pin_memory()


def render(
    views: Mapping[Key, ViewPixels], recipe: Recipe, preprocessing: NetworkInput, device: torch.device
) -> Iterator[tuple[Key, Tensor]]:
    """Finish views on ``device``: yield float32 (B, 3, S, S) of each, normalised, in channels-last memory.

    Those that share their pixels go together, the others one after the other.
    """
    sharing: dict[int, tuple[Tensor, dict[Key, ViewPixels]]] = {}
    for name, view in views.items():
        if isinstance(view.pixels, EncodedBatch):
            crops = view.pixels.crops(view.parameters, preprocessing.size, recipe.interpolation, device)
            yield name, finish(crops, view.parameters, recipe, preprocessing, cropped=True)
        else:
            sharing.setdefault(id(view.pixels), (view.pixels, {}))[1][name] = view
    for shared, alike in sharing.values():
        parameters, cropped = joined([view.parameters for view in alike.values()]), next(iter(alike.values())).cropped
        pixels = (shared[:, :1] if _one_for_three(shared) else shared).to(device, non_blocking=True)
        finished = finish(pixels, parameters, recipe, preprocessing, cropped)
        yield from zip(alike, finished.tensor_split(len(alike)), strict=True)


def _one_for_three(pixels: Tensor) -> bool:
    """Tell whether the channels (B, 3, H, W) of grey images are one, expanded."""
    return pixels.stride(1) == 0


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
        _Caught(source),
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
        if isinstance(item, _Fault):
            raise RuntimeError(f"a loader process failed:\n{item.traceback}")
        yield item


def _outlive_signals(_: int) -> None:
    outlive()


@dataclass(frozen=True)
class _Fault:
    """A fault of the software, in a worker process."""

    traceback: str


class _Caught(Dataset[Any]):
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
            return _Fault(traceback.format_exc())


def _unchanged(item: Any) -> Any:
    """Pass a ready item through: collation for sources that make whole batches."""
    return item
