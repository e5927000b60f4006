"""Batches of views for training: what is drawn depends on seed, epoch and step alone."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice, product
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bingo.bags.bags import Bags
from bingo.data.images import Images, render_views
from bingo.errors import BingoError
from bingo.philox import Stream, permutation
from bingo.study.method import View
from bingo.study.sections import NetworkInput
from bingo.training.loader import load
from bingo.views.parameters import draw, draw_for_teacher
from bingo.views.recipes import Recipe
from bingo.views.rendering import ViewPixels, pin_views, render

Key = TypeVar("Key")


@dataclass(frozen=True)
class Batch:
    """One step of training."""

    epoch: int
    step: int
    """Step within the epoch, from 0."""
    rows: dict[str, NDArray[np.int64]]
    """(B,) positions in the listing of the `anchor` images, and of the `positive` ones where any are asked for."""
    views: dict[str, ViewPixels]
    """By the names that the method gives them."""

    def pin_memory(self) -> "Batch":
        """Return the same in memory from which a GPU copies by itself, while others compute."""
        return replace(self, views=pin_views(self.views))


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
                parameters[name] = draw_for_teacher(self.recipe, index, teacher_epoch, view.slot, size)
            else:
                parameters[name] = draw(self.recipe, self.seed, index, epoch, view.slot, size)
        views: dict[str, ViewPixels] = {}
        for image, index in rows.items():
            wanted = {name: parameters[name] for name, view in self.views.items() if view.image == image}
            if wanted:
                views |= render_views(self.images, index, wanted, self.preprocessing, self.recipe)
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
