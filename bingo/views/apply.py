"""Applying views to batches of images, on whichever device the images are."""

from collections.abc import Iterable, Sequence
from typing import Protocol

import torch
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as V

from bingo.study.sections import Interpolation, NetworkInput, Preprocessing
from bingo.views.colour import apply_colour
from bingo.views.parameters import ViewParameters
from bingo.views.recipes import Recipe

CropBox = tuple[int, int, int, int]
"""Top, left, height, width, in pixels of the upright image."""
MODES = {name: InterpolationMode(name) for name in ("bilinear", "bicubic")}
_BLOCK_VALUES = 2**20
"""Numbers, 4 MiB, that a CPU takes through all steps at a time: cores share them, and they stay in its caches."""


class CroppableImage(Protocol):
    """An image that makes its own views: `bingo.data.pictures.Picture`, say."""

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""

    def view(self, box: CropBox, size: tuple[int, int], interpolation: Interpolation) -> Tensor:
        """Return what ``box`` shows, resized to ``size`` with antialiasing: uint8 (3, *size)."""


def crop_batch(images: Tensor, parameters: ViewParameters, size: int, interpolation: Interpolation) -> Tensor:
    """Crop, flip and resize equally large images, antialiased.

    Both axes are linear maps, so a batch is two batched matrix products.

    Args:
        images: (B, C, H, W) uint8 in [0, 255] or float.
        parameters: `box` and `flip` are used.
        size: side S of the result.
        interpolation: how to resize; bicubic overshoots, and is cut to [0, 255].

    Returns:
        (B, C, S, S) float32 in the range of ``images``.
    """
    top, left, height, width = parameters.box.to(images.device, non_blocking=True).unbind(1)
    flip = parameters.flip.to(images.device, non_blocking=True)
    rows = _resize_matrix(top, height, torch.zeros_like(flip), images.shape[2], size, interpolation)  # (B, S, H)
    columns = _resize_matrix(left, width, flip, images.shape[3], size, interpolation)  # (B, S, W)
    batch, channels, source_height, source_width = images.shape
    across = torch.bmm(images.float().reshape(batch, -1, source_width), columns.transpose(1, 2))  # (B, C H, S)
    if interpolation == "bicubic":  # between the passes too, as torch and Pillow do with bytes
        across = across.clamp_(0, 255)
    across = across.view(batch * channels, source_height, size)
    crops = torch.bmm(rows.repeat_interleave(channels, 0), across).view(batch, channels, size, size)
    return crops if interpolation == "bilinear" else crops.clamp_(0, 255)


def crop_each(
    images: Iterable[CroppableImage], views: Sequence[ViewParameters], size: int, interpolation: Interpolation
) -> list[Tensor]:
    """Do the same as `crop_batch` for images of any sizes, one after the other, in several views.

    Args:
        images: B of them; each is let go before the next is asked for.
        views: `box` and `flip` are used.
        size: side S of the results.
        interpolation: how to resize.

    Returns:
        For each of ``views``, (B, 3, S, S) uint8, rounded.

    Raises:
        BingoError: an image cannot be decoded.
    """
    crops: list[list[Tensor]] = [[] for _ in views]
    for row, image in enumerate(images):
        for parameters, done in zip(views, crops, strict=True):
            top, left, height, width = parameters.box[row].tolist()
            crop = image.view((top, left, height, width), (size, size), interpolation)
            done.append(crop.flip(-1) if parameters.flip[row] else crop)
    return [torch.stack(done) for done in crops]


def finish(
    images: Tensor, parameters: ViewParameters, recipe: Recipe, preprocessing: NetworkInput, cropped: bool
) -> Tensor:
    """Crop where that is not done, colour and normalise images, in one view or several.

    Args:
        images: (B, C, H, W) uint8; C is 3, or 1 for grey images.
        parameters: V B rows, on the CPU: of each view of all images, one after the other.
        recipe: where it draws, `parameters` comes from it.
        preprocessing: size, mean and deviation.
        cropped: whether the images are crops of that size.

    Returns:
        (V B, 3, S, S) float32 in channels-last memory.
    """
    size, count = preprocessing.size, len(parameters.flip)
    mean, std = _statistics(preprocessing, images.device)
    finished = torch.empty(count, size, size, 3, device=images.device)
    together = max(1, _BLOCK_VALUES // images.shape[1:].numel()) if images.device.type == "cpu" else max(1, count)
    for start in range(0, count, together):
        block = slice(start, start + together)
        drawn, rows = parameters.select(block), torch.arange(count)[block] % len(images)
        shown = images.index_select(0, rows.to(images.device, non_blocking=True))
        shown = shown.float() if cropped else crop_batch(shown, drawn, size, recipe.interpolation)
        shown = apply_colour(shown.mul_(1 / 255), drawn, recipe)
        shown = shown.expand(-1, 3, -1, -1).sub(mean) if shown.shape[1] == 1 else shown.sub_(mean)
        finished[block] = shown.div_(std).permute(0, 2, 3, 1)
    return finished.permute(0, 3, 1, 2)


def normalise(images: Tensor, preprocessing: NetworkInput) -> Tensor:
    """Return (images - mean) / std per channel, for (B, 3, S, S) in [0, 1], in channels-last memory."""
    mean, std = _statistics(preprocessing, images.device)
    return ((images - mean) / std).contiguous(memory_format=torch.channels_last)


def _statistics(preprocessing: NetworkInput, device: torch.device) -> Tensor:
    """Return mean and deviation of each channel: (2, 3, 1, 1)."""
    numbers = torch.tensor([preprocessing.mean, preprocessing.std])[:, :, None, None]
    return numbers.to(device, non_blocking=True)


def centre_crop(
    images: Tensor | Iterable[CroppableImage], preprocessing: Preprocessing, interpolation: Interpolation
) -> Tensor:
    """Return the view of evaluation: shorter side resized to `resize`, centre `size` cropped.

    Args:
        images: (B, 3, H, W) uint8, or B that make their own views.
        preprocessing: `resize` and `size` are used.
        interpolation: how to resize.

    Returns:
        (B, 3, size, size) uint8.

    Raises:
        BingoError: an image cannot be decoded.
    """
    if isinstance(images, Tensor):
        resized = V.resize(images, [preprocessing.resize], MODES[interpolation], antialias=True)
        return V.center_crop(resized, [preprocessing.size])
    return torch.stack([_centre(image, preprocessing, interpolation) for image in images])


def resized_shape(size: tuple[int, int], side: int) -> tuple[int, int]:
    """Return height and width of an image whose shorter side is resized to ``side``, as torchvision has them."""
    short, long = min(size), int(side * max(size) / min(size))
    return (side, long) if size[0] == short else (long, side)


def _centre(image: CroppableImage, preprocessing: Preprocessing, interpolation: Interpolation) -> Tensor:
    resized = image.view((0, 0, *image.size), resized_shape(image.size, preprocessing.resize), interpolation)
    return V.center_crop(resized, [preprocessing.size])


def _resize_matrix(
    start: Tensor, length: Tensor, flip: Tensor, source: int, target: int, interpolation: Interpolation
) -> Tensor:
    """Weights (B, target, source) that resize ``source[start : start + length]`` (B,) to ``target`` pixels.

    Where ``flip`` (B,), the pixels come in reverse order.

    The filters of antialiased interpolation as torch and Pillow have them: a triangle, or Keys' cubic with a = -1/2.
    """
    start, length = start.float()[:, None, None], length.float()[:, None, None]  # (B, 1, 1)
    scale = length / target
    centres = (torch.arange(target, device=start.device)[:, None] + 0.5) * scale  # (B, target, 1)
    centres = torch.where(flip[:, None, None], centres.flip(1), centres)
    position = torch.arange(source, device=start.device) + 0.5 - start  # (B, 1, source)
    position = position.masked_fill_((position < 0) | (position > length), torch.inf)  # these weigh nothing
    distance = (position - centres).abs_().div_(scale.clamp(min=1.0))
    if interpolation == "bilinear":
        weights = distance.neg_().add_(1).clamp_(min=0)
    else:
        near = (1.5 * distance - 2.5) * distance**2 + 1
        far = ((-0.5 * distance + 2.5) * distance - 4) * distance + 2
        weights = torch.where(distance < 1, near, torch.where(distance < 2, far, 0.0))
    return weights.div_(weights.sum(2, keepdim=True))
