"""Batches of images and targets for detection training, as pure functions of seed, epoch and step."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice, product

import torch
from torch import Tensor

from bingo.errors import BingoError
from bingo.evaluation.detection.coco import CocoImages
from bingo.philox import Stream, permutation, uniform
from bingo.training.loader import load

Target = dict[str, Tensor]


@dataclass(frozen=True)
class DetectionBatch:
    """The batch of one training step: B images of different sizes, with N objects in total.

    Images and masks are flattened into one tensor each, because every tensor from a loader worker takes a file
    descriptor.
    """

    epoch: int
    step: int
    """Step within the epoch, from 0."""
    sizes: list[tuple[int, int]]
    """Height and width of each image."""
    counts: list[int]
    """Number of objects in each image."""
    pixels: Tensor
    """uint8, the concatenated images, flattened."""
    boxes: Tensor
    """float32 (N, 4)."""
    labels: Tensor
    """int64 (N,)."""
    masks: Tensor | None
    """uint8, the concatenated masks, flattened."""

    def on(self, device: torch.device) -> tuple[list[Tensor], list[Target]]:
        """Return B images, float32 (3, H, W) in [0, 1], and their targets, on ``device``."""
        areas = [height * width for height, width in self.sizes]
        pixels = self.pixels.to(device).split([3 * area for area in areas])
        images = [part.reshape(3, *size) / 255 for part, size in zip(pixels, self.sizes, strict=True)]  # (3, H, W)
        boxes, labels = (values.to(device).split(self.counts) for values in (self.boxes, self.labels))
        targets = [{"boxes": box, "labels": label} for box, label in zip(boxes, labels, strict=True)]
        if self.masks is not None:
            masks = self.masks.to(device).split([n * area for n, area in zip(self.counts, areas, strict=True)])
            for target, mask, size in zip(targets, masks, self.sizes, strict=True):
                target["masks"] = mask.reshape(-1, *size)  # (n, H, W)
        return images, targets


def flip(pixels: Tensor, target: Target) -> tuple[Tensor, Target]:
    """Flip an image (3, H, W) and its target horizontally."""
    x1, y1, x2, y2 = target["boxes"].unbind(dim=1)
    width = pixels.shape[2]
    mirrored = target | {"boxes": torch.stack([width - x2, y1, width - x1, y2], dim=1)}
    if "masks" in target:
        mirrored["masks"] = target["masks"].flip(2)
    return pixels.flip(2), mirrored


class DetectionBatches:
    """Maps (epoch, step) to a batch. A pure function: the number of loader workers does not change the result."""

    def __init__(self, images: CocoImages, batch_size: int, seed: int) -> None:
        """Describe the batches. Images without trainable objects are left out.

        Args:
            images: training images.
            batch_size: images per step. The last batch of an epoch may have fewer; it is dropped if it has only one.
            seed: seed of order and flips.

        Raises:
            BingoError: fewer than two images have trainable objects.
        """
        self.images, self.batch_size, self.seed = images, batch_size, seed
        self.positions = images.trainable()
        if len(self.positions) < 2:
            raise BingoError(
                f"{images.annotations.path}: only one image has objects to train on, but batch norm needs at least "
                "two; annotate more images"
            )

    @property
    def steps(self) -> int:
        """Steps per epoch."""
        full, rest = divmod(len(self.positions), self.batch_size)
        return full + (rest > 1)

    def count(self, step: int) -> int:
        """Return the number of images in a step."""
        return min(self.batch_size, len(self.positions) - step * self.batch_size)

    def __getitem__(self, index: tuple[int, int]) -> DetectionBatch:
        """Return the batch of ``index``, an (epoch, step).

        Raises:
            BingoError: an image cannot be read.
        """
        epoch, step = index
        order = permutation(self.seed, Stream.ORDER, epoch, len(self.positions))
        positions = self.positions[order[step * self.batch_size : (step + 1) * self.batch_size]]  # (B,)
        flips = uniform(self.seed, Stream.VIEW, positions, epoch, 0, 1)[:, 0] < 0.5  # (B,)
        pixels, targets = [], []
        for position, flipped in zip(positions.tolist(), flips, strict=True):
            image, target = self.images.read(position), self.images.target(position)
            if flipped:
                image, target = flip(image, target)
            pixels.append(image)
            targets.append(target)
        masks = [target["masks"].flatten() for target in targets] if self.images.annotations.masks else None
        return DetectionBatch(
            epoch=epoch,
            step=step,
            sizes=[(image.shape[1], image.shape[2]) for image in pixels],
            counts=[len(target["labels"]) for target in targets],
            pixels=torch.cat([image.flatten() for image in pixels]),
            boxes=torch.cat([target["boxes"] for target in targets]),
            labels=torch.cat([target["labels"] for target in targets]),
            masks=None if masks is None else torch.cat(masks),
        )

    def batches(self, start_epoch: int, epochs: int, workers: int, start_step: int = 0) -> Iterator[DetectionBatch]:
        """Yield the batches from step ``start_step`` of ``start_epoch`` to the end of training.

        Raises:
            BingoError: an image cannot be read.
        """
        indices = product(range(start_epoch, epochs), range(self.steps))
        yield from load(self, islice(indices, start_step, None), workers)


class _Pixels:
    """Maps a position to an image."""

    def __init__(self, images: CocoImages) -> None:
        self.images = images

    def __getitem__(self, position: int) -> Tensor:
        return self.images.read(position)


def pictures(images: CocoImages, workers: int) -> Iterator[Tensor]:
    """Yield all images in order: uint8 (3, H, W) each.

    Raises:
        BingoError: an image cannot be read.
    """
    yield from load(_Pixels(images), range(len(images)), workers)
