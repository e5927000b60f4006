"""Batches of views for training: what is drawn depends on seed, epoch and step alone."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from bingo.bags.bags import Bags
from bingo.config import NetworkInput
from bingo.data.images import Images
from bingo.errors import BingoError
from bingo.methods.method import ViewRequest
from bingo.philox import Stream, permutation
from bingo.views.apply import colour, crop_batch, crop_each, normalise
from bingo.views.parameters import ViewParameters, draw
from bingo.views.recipes import Recipe


@dataclass(frozen=True)
class ViewPixels:
    """One view of each image of a batch, before what is done on the training device."""

    pixels: Tensor
    """uint8: whole images (B, 3, H, W), or crops (B, 3, S, S)."""
    cropped: bool
    parameters: ViewParameters


@dataclass(frozen=True)
class Batch:
    """One step of training."""

    anchors: NDArray[np.int64]
    """(B,) positions of the anchors in the listing."""
    views: list[ViewPixels]
    """In the order of the method's requests."""


class TrainingBatches(Dataset[Batch | BingoError]):
    """Maps (epoch, step) to a batch, purely; loader workers only decide who computes it."""

    def __init__(
        self,
        images: Images,
        requests: Sequence[ViewRequest],
        recipe: Recipe,
        preprocessing: NetworkInput,
        batch_size: int,
        seed: int,
        bags: Bags | None,
        drop_last: bool = True,
    ) -> None:
        """Describe the batches.

        Args:
            images: the training images.
            requests: the views that the method needs.
            recipe: how views are drawn.
            preprocessing: size and normalisation of views.
            batch_size: anchors per step.
            seed: seed of order, views and positives.
            bags: where positives come from, for methods that request any.
            drop_last: leave out the incomplete last batch of an epoch.

        Raises:
            BingoError: there are fewer images than a batch holds.
        """
        if len(images.listing) < batch_size:
            raise BingoError(
                f"batch_size: {batch_size} is more than the {len(images.listing)} training images; lower it"
            )
        self.images, self.requests, self.recipe, self.preprocessing = images, requests, recipe, preprocessing
        self.batch_size, self.seed, self.bags, self.drop_last = batch_size, seed, bags, drop_last
        self._order: tuple[int, NDArray[np.int64]] | None = None

    @property
    def steps(self) -> int:
        """Steps per epoch."""
        whole, rest = divmod(len(self.images.listing), self.batch_size)
        return whole + (rest > 0 and not self.drop_last)

    def __getitem__(self, position: tuple[int, int]) -> Batch | BingoError:
        """Return the batch of (epoch, step), or the user's fault that prevents it.

        An exception that crosses from a worker process would arrive wrapped in a traceback.
        """
        try:
            return self._batch(*position)
        except BingoError as error:
            return error

    def batches(self, start_epoch: int, epochs: int, workers: int) -> Iterator[Batch]:
        """Yield the batches of epochs ``start_epoch`` to ``epochs`` - 1, one after the other.

        Raises:
            BingoError: an image cannot be read.
        """
        loader = DataLoader(
            self,
            sampler=product(range(start_epoch, epochs), range(self.steps)),
            batch_size=None,
            collate_fn=unchanged,
            num_workers=workers,
        )
        for batch in loader:
            if isinstance(batch, BingoError):
                raise batch
            yield batch

    def render(self, view: ViewPixels, device: torch.device) -> Tensor:
        """Finish a view on ``device``: float32 (B, 3, S, S), normalised, in channels-last memory."""
        pixels = view.pixels.to(device, non_blocking=True)
        if not view.cropped:
            pixels = crop_batch(pixels, view.parameters, self.preprocessing.size)
        return normalise(colour(pixels / 255, view.parameters, self.recipe), self.preprocessing)

    def _order_of(self, epoch: int) -> NDArray[np.int64]:
        """Return the order of the images in an epoch: (N,); the last one asked for is kept."""
        if self._order is None or self._order[0] != epoch:
            self._order = epoch, permutation(self.seed, Stream.ORDER, epoch, len(self.images.listing))
        return self._order[1]

    def _batch(self, epoch: int, step: int) -> Batch:
        anchors = self._order_of(epoch)[step * self.batch_size : (step + 1) * self.batch_size]
        index = {"anchor": anchors}
        if any(request.image == "positive" for request in self.requests):
            assert self.bags is not None
            index["positive"] = self.bags.draw(anchors, self.seed, epoch)
        parameters = []
        for request in self.requests:
            rows = index[request.image]
            size = self.images.listing.size[rows]
            parameters.append(draw(self.recipe, self.seed, rows, epoch, request.view, size))
        views: dict[int, ViewPixels] = {}
        for image, rows in index.items():
            wanted = [i for i, request in enumerate(self.requests) if request.image == image]
            source = self.images.fetch(rows)
            if isinstance(source, Tensor):
                views |= {i: ViewPixels(source, False, parameters[i]) for i in wanted}
            else:
                crops = crop_each(source, [parameters[i] for i in wanted], self.preprocessing.size)
                views |= {i: ViewPixels(crop, True, parameters[i]) for i, crop in zip(wanted, crops, strict=True)}
        return Batch(anchors, [views[i] for i in range(len(self.requests))])


def unchanged(batch: Any) -> Any:
    """Pass a ready batch through: collation for datasets that make whole batches."""
    return batch
