"""Apply augmentations to batches of images, on the images' device."""

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
"""Float32 values (4 MiB) that a CPU processes at a time, so that they stay in its caches through all steps."""


class CroppableImage(Protocol):
    """An image that can render a crop of itself, for example `bingo.data.pictures.Picture`."""

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""

    def view(self, box: CropBox, size: tuple[int, int], interpolation: Interpolation) -> Tensor:
        """Return the crop ``box``, resized to ``size`` with antialiasing: uint8 (3, *size)."""


def crop_batch(images: Tensor, parameters: ViewParameters, size: int, interpolation: Interpolation) -> Tensor:
    """Crop, flip and resize images of equal size, with antialiasing.

    Resizing is linear along each axis, so a batch takes two batched matrix products.

    Args:
        images: (B, C, H, W) uint8 in [0, 255] or float.
        parameters: uses `box` and `flip`.
        size: height and width S of the result.
        interpolation: bilinear or bicubic; bicubic overshoots and is clamped to [0, 255].

    Returns:
        (B, C, S, S) float32 in the range of ``images``.
    """
    top, left, height, width = parameters.box.to(images.device, non_blocking=True).unbind(1)
    flip = parameters.flip.to(images.device, non_blocking=True)
    rows = _resize_matrix(top, height, torch.zeros_like(flip), images.shape[2], size, interpolation)  # (B, S, H)
    columns = _resize_matrix(left, width, flip, images.shape[3], size, interpolation)  # (B, S, W)
    batch, channels, source_height, source_width = images.shape
    resized = torch.bmm(images.float().reshape(batch, -1, source_width), columns.transpose(1, 2))  # (B, C H, S)
    if interpolation == "bicubic":  # torch and Pillow also clamp between the two passes
        resized = resized.clamp_(0, 255)
    resized = resized.view(batch * channels, source_height, size)  # (B C, H, S)
    crops = torch.bmm(rows.repeat_interleave(channels, 0), resized).view(batch, channels, size, size)
    return crops if interpolation == "bilinear" else crops.clamp_(0, 255)


def crop_each(
    images: Iterable[CroppableImage], views: Sequence[ViewParameters], size: int, interpolation: Interpolation
) -> list[Tensor]:
    """Like `crop_batch`, for several views of images of different sizes, one image at a time.

    Args:
        images: B images; each is released before the next one is requested.
        views: parameters of each view; uses `box` and `flip`.
        size: height and width S of the results.
        interpolation: bilinear or bicubic.

    Returns:
        For each view, (B, 3, S, S) uint8, rounded.

    Raises:
        BingoError: an image cannot be decoded.
    """
    crops: list[list[Tensor]] = [[] for _ in views]
    for row, image in enumerate(images):
        for parameters, crops_of_view in zip(views, crops, strict=True):
            top, left, height, width = parameters.box[row].tolist()
            crop = image.view((top, left, height, width), (size, size), interpolation)  # (3, S, S)
            crops_of_view.append(crop.flip(-1) if parameters.flip[row] else crop)
    return [torch.stack(crops_of_view) for crops_of_view in crops]


def finish(
    images: Tensor, parameters: ViewParameters, recipe: Recipe, preprocessing: NetworkInput, cropped: bool
) -> Tensor:
    """Crop (if necessary), colour-augment and normalise images, in one or several views.

    Args:
        images: (B, C, H, W) uint8; C is 3, or 1 for grey images.
        parameters: V B rows on the CPU: the B images of the first view, then of the second, and so on.
        recipe: recipe from which ``parameters`` were drawn.
        preprocessing: size S, mean and standard deviation.
        cropped: whether ``images`` are already crops of size S.

    Returns:
        (V B, 3, S, S) float32 in channels-last memory.
    """
    size, count = preprocessing.size, len(parameters.flip)
    mean, std = _statistics(preprocessing, images.device)
    finished = torch.empty(count, size, size, 3, device=images.device)
    block_size = max(1, _BLOCK_VALUES // images.shape[1:].numel()) if images.device.type == "cpu" else max(1, count)
    for start in range(0, count, block_size):
        block = slice(start, start + block_size)
        params, rows = parameters.select(block), torch.arange(count)[block] % len(images)
        x = images.index_select(0, rows.to(images.device, non_blocking=True))  # (b, C, H, W)
        x = x.float() if cropped else crop_batch(x, params, size, recipe.interpolation)  # (b, C, S, S)
        x = apply_colour(x.mul_(1 / 255), params, recipe)
        x = x.expand(-1, 3, -1, -1).sub(mean) if x.shape[1] == 1 else x.sub_(mean)  # (b, 3, S, S)
        finished[block] = x.div_(std).permute(0, 2, 3, 1)
    return finished.permute(0, 3, 1, 2)


def normalise(images: Tensor, preprocessing: NetworkInput) -> Tensor:
    """Return (images - mean) / std per channel, for (B, 3, S, S) in [0, 1], in channels-last memory."""
    mean, std = _statistics(preprocessing, images.device)
    return ((images - mean) / std).contiguous(memory_format=torch.channels_last)


def _statistics(preprocessing: NetworkInput, device: torch.device) -> Tensor:
    """Return mean and standard deviation of each channel: (2, 3, 1, 1)."""
    statistics = torch.tensor([preprocessing.mean, preprocessing.std])[:, :, None, None]
    return statistics.to(device, non_blocking=True)


def centre_crop(
    images: Tensor | Iterable[CroppableImage], preprocessing: Preprocessing, interpolation: Interpolation
) -> Tensor:
    """Resize the shorter side to `resize` and crop the central `size` x `size` pixels, as for evaluation.

    Args:
        images: (B, 3, H, W) uint8, or B encoded images.
        preprocessing: uses `resize` and `size` S.
        interpolation: bilinear or bicubic.

    Returns:
        (B, 3, S, S) uint8.

    Raises:
        BingoError: an image cannot be decoded.
    """
    if isinstance(images, Tensor):
        resized = V.resize(images, [preprocessing.resize], MODES[interpolation], antialias=True)
        return V.center_crop(resized, [preprocessing.size])
    return torch.stack([_centre(image, preprocessing, interpolation) for image in images])


def resized_shape(size: tuple[int, int], side: int) -> tuple[int, int]:
    """Return (height, width) after resizing the shorter side to ``side``, rounded as in torchvision."""
    short, long = min(size), int(side * max(size) / min(size))
    return (side, long) if size[0] == short else (long, side)


def _centre(image: CroppableImage, preprocessing: Preprocessing, interpolation: Interpolation) -> Tensor:
    resized = image.view((0, 0, *image.size), resized_shape(image.size, preprocessing.resize), interpolation)
    return V.center_crop(resized, [preprocessing.size])


def _resize_matrix(
    start: Tensor, length: Tensor, flip: Tensor, source: int, target: int, interpolation: Interpolation
) -> Tensor:
    """Return the weights (B, target, source) that resize ``source[start : start + length]`` to ``target`` pixels.

    ``start``, ``length`` and ``flip`` are (B,). ``flip`` reverses the order of the pixels.

    Uses the antialiasing filters of torch and Pillow: a triangle (bilinear), or Keys' cubic with a = -1/2 (bicubic).
    """
    start, length = start.float()[:, None, None], length.float()[:, None, None]  # (B, 1, 1)
    scale = length / target
    centres = (torch.arange(target, device=start.device)[:, None] + 0.5) * scale  # (B, target, 1)
    centres = torch.where(flip[:, None, None], centres.flip(1), centres)
    position = torch.arange(source, device=start.device) + 0.5 - start  # (B, 1, source)
    position = position.masked_fill_((position < 0) | (position > length), torch.inf)  # weight 0 outside the box
    distance = (position - centres).abs_().div_(scale.clamp(min=1.0))  # (B, target, source)
    if interpolation == "bilinear":
        weights = distance.neg_().add_(1).clamp_(min=0)
    else:
        near = (1.5 * distance - 2.5) * distance**2 + 1
        far = ((-0.5 * distance + 2.5) * distance - 4) * distance + 2
        weights = torch.where(distance < 1, near, torch.where(distance < 2, far, 0.0))
    return weights.div_(weights.sum(2, keepdim=True))
