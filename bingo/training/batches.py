"""Batches of augmented views for training, as pure functions of seed, epoch and step."""

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
    """The batch of one training step."""

    epoch: int
    step: int
    """Step within the epoch, from 0."""
    rows: dict[str, NDArray[np.int64]]
    """(B,) positions in the listing: `anchor` and, if the method needs them, `positive` images."""
    views: dict[str, ViewPixels]
    """Views by the method's names for them."""

    def pin_memory(self) -> "Batch":
        """Return the batch in pinned memory, from which a GPU copies asynchronously."""
        return replace(self, views=pin_views(self.views))


class TrainingBatches:
    """Maps (epoch, step) to a batch. A pure function: the number of loader workers does not change the result."""

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
            images: training images.
            views: views that the method needs, by name.
            recipe: augmentation recipe.
            preprocessing: size and normalisation of the views.
            batch_size: anchors per step, summed over all processes.
            seed: seed of order, positives and the views that no teacher sees.
            bags: bags to draw positives from, for methods that need positives.
            stored: number of epochs after which stored teacher views repeat; views seen only by the teacher are then
                not rendered. None for a teacher that runs during training.
            drop_last: drop the incomplete last batch of an epoch.
            rank: rank of this process; the concatenated parts of all ranks are the batch.
            processes: number of processes, which get parts of equal size (up to one image).

        Raises:
            BingoError: there are fewer images than ``batch_size``.
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
        full, rest = divmod(len(self.images.listing), self.batch_size)
        return full + (rest > 0 and not self.drop_last)

    def __getitem__(self, index: tuple[int, int]) -> Batch:
        """Return this process's part of the batch of ``index``, an (epoch, step).

        Raises:
            BingoError: an image cannot be read.
        """
        epoch, step = index
        batch = self._order_of(epoch)[step * self.batch_size : (step + 1) * self.batch_size]  # (B,)
        start, end = (len(batch) * rank // self.processes for rank in (self.rank, self.rank + 1))
        rows = {"anchor": batch[start:end]}
        if self.needs_positives:
            assert self.bags is not None
            rows["positive"] = self.bags.draw(rows["anchor"], self.seed, epoch)
        teacher_epoch = epoch if self.stored is None else epoch % self.stored
        parameters = {}
        for name, view in self.views.items():
            size = self.images.listing.size[rows[view.image]]  # (B, 2)
            if view.teacher:
                drawn = draw_for_teacher(self.recipe, rows[view.image], teacher_epoch, view.slot, size)
            else:
                drawn = draw(self.recipe, self.seed, rows[view.image], epoch, view.slot, size)
            parameters[name] = drawn
        views: dict[str, ViewPixels] = {}
        for image, positions in rows.items():
            views_of_image = {name: parameters[name] for name, view in self.views.items() if view.image == image}
            if views_of_image:
                views |= render_views(self.images, positions, views_of_image, self.preprocessing, self.recipe)
        return Batch(epoch, step, rows, views)

    def count(self, step: int) -> int:
        """Return the number of images in a step's batch, summed over all processes."""
        return min(self.batch_size, len(self.images.listing) - step * self.batch_size)

    def batches(self, start_epoch: int, epochs: int, workers: int, start_step: int = 0) -> Iterator[Batch]:
        """Yield the batches from step ``start_step`` of ``start_epoch`` to the end of training.

        Args:
            start_epoch: first epoch, from 0.
            epochs: total number of epochs.
            workers: number of loader workers; 0 loads in this process.
            start_step: first step within the first epoch, from 0.

        Raises:
            BingoError: an image cannot be read.
        """
        indices = product(range(start_epoch, epochs), range(self.steps))
        yield from load(self, islice(indices, start_step, None), workers)

    def render(self, views: Mapping[Key, ViewPixels], device: torch.device) -> dict[Key, Tensor]:
        """Augment and normalise views on ``device``: float32 (B, 3, S, S) each, in channels-last memory."""
        return dict(render(views, self.recipe, self.preprocessing, device))

    def _order_of(self, epoch: int) -> NDArray[np.int64]:
        """Return the order of the images in an epoch, (N,); caches the last epoch's."""
        if self._order is None or self._order[0] != epoch:
            self._order = epoch, permutation(self.seed, Stream.ORDER, epoch, len(self.images.listing))
        return self._order[1]
