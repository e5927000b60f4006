"""Applying views to batches of images, on whichever device the images are."""

from collections.abc import Iterable, Sequence
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from bingo.data.pictures import MODES, Box, shortened
from bingo.sections import NetworkInput, Preprocessing
from bingo.views.parameters import ViewParameters
from bingo.views.recipes import Interpolation, Recipe
from bingo.vision import V

_LUMA = (0.2989, 0.587, 0.114)


class Viewable(Protocol):
    """An image that makes its own views: `bingo.data.pictures.Picture`, say."""

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""

    def view(self, box: Box, size: tuple[int, int], interpolation: Interpolation) -> Tensor:
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
    top, left, height, width = parameters.box.to(images.device).unbind(1)
    rows = _resize_matrix(top, height, images.shape[2], size, interpolation)  # (B, S, H)
    columns = _resize_matrix(left, width, images.shape[3], size, interpolation)  # (B, S, W)
    flip = parameters.flip.to(images.device)
    columns = torch.where(flip[:, None, None], columns.flip(1), columns)
    batch, channels, source_height, source_width = images.shape
    across = images.float().reshape(batch, -1, source_width) @ columns.transpose(1, 2)  # (B, C H, S)
    across = across.reshape(batch, channels, source_height, size).transpose(1, 2)  # (B, H, C, S)
    if interpolation == "bicubic":  # between the passes too, as torch and Pillow do with bytes
        across = across.clamp(0, 255)
    both = rows @ across.reshape(batch, source_height, -1)  # (B, S, C S)
    crops = both.reshape(batch, size, channels, size).transpose(1, 2)
    return crops if interpolation == "bilinear" else crops.clamp(0, 255)


def crop_each(
    images: Iterable[Viewable], views: Sequence[ViewParameters], size: int, interpolation: Interpolation
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


def colour(images: Tensor, parameters: ViewParameters, recipe: Recipe) -> Tensor:
    """Jitter, grayscale and blur cropped images.

    Args:
        images: (B, 3, S, S) float32 in [0, 1].
        parameters: one row per image.
        recipe: where it draws, `parameters` comes from it; steps that it never takes are left out.

    Returns:
        (B, 3, S, S) float32 in [0, 1].
    """
    parameters = parameters.to(images.device)
    if recipe.jitter > 0:
        images = _jitter(images, parameters, recipe)
    if recipe.grayscale > 0:
        images = torch.where(parameters.grayscale[:, None, None, None], _luma(images), images)
    if recipe.blur > 0:
        images = _blur(images, parameters.sigma, recipe.blur_sigma[1])
    return images


def normalise(images: Tensor, preprocessing: NetworkInput) -> Tensor:
    """Return (images - mean) / std per channel, for (B, 3, S, S) in [0, 1], in channels-last memory."""
    mean = torch.tensor(preprocessing.mean, device=images.device)[:, None, None]
    std = torch.tensor(preprocessing.std, device=images.device)[:, None, None]
    return ((images - mean) / std).contiguous(memory_format=torch.channels_last)


def centre(images: Tensor | Iterable[Viewable], preprocessing: Preprocessing, interpolation: Interpolation) -> Tensor:
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


def _centre(image: Viewable, preprocessing: Preprocessing, interpolation: Interpolation) -> Tensor:
    resized = image.view((0, 0, *image.size), shortened(image.size, preprocessing.resize), interpolation)
    return V.center_crop(resized, [preprocessing.size])


def _resize_matrix(start: Tensor, length: Tensor, source: int, target: int, interpolation: Interpolation) -> Tensor:
    """Weights (B, target, source) that resize ``source[start : start + length]`` (B,) to ``target`` pixels.

    The filters of antialiased interpolation as torch and Pillow have them: a triangle, or Keys' cubic with a = -1/2.
    """
    scale = length.float()[:, None, None] / target  # (B, 1, 1)
    support = scale.clamp(min=1.0)
    centres = (torch.arange(target, device=start.device)[:, None] + 0.5) * scale  # (B, target, 1)
    position = torch.arange(source, device=start.device) - start[:, None, None]  # (B, 1, source)
    distance = (position + 0.5 - centres).abs() / support
    if interpolation == "bilinear":
        weights = (1 - distance).clamp(min=0)
    else:
        near = (1.5 * distance - 2.5) * distance**2 + 1
        far = ((-0.5 * distance + 2.5) * distance - 4) * distance + 2
        weights = torch.where(distance < 1, near, torch.where(distance < 2, far, 0.0))
    weights = weights * ((position >= 0) & (position < length[:, None, None]))
    return weights / weights.sum(2, keepdim=True)


def _luma(images: Tensor) -> Tensor:
    """Grey value of (B, 3, S, S): (B, 1, S, S)."""
    red, green, blue = images.unbind(1)
    return (_LUMA[0] * red + _LUMA[1] * green + _LUMA[2] * blue)[:, None]


def _jitter(images: Tensor, parameters: ViewParameters, recipe: Recipe) -> Tensor:
    """Brightness, contrast, saturation and hue, each image in its own order."""
    strengths = (recipe.brightness, recipe.contrast, recipe.saturation, recipe.hue)
    images = images.clone()
    for place in range(4):
        for step, strength in enumerate(strengths):
            if strength == 0:
                continue
            rows = (parameters.order[:, place] == step).nonzero()[:, 0]
            factor = parameters.factor[rows, step, None, None, None]
            images[rows] = _JITTER_STEPS[step](images[rows], factor)
    return images


def _brightness(images: Tensor, factor: Tensor) -> Tensor:
    return (images * factor).clamp(0, 1)


def _contrast(images: Tensor, factor: Tensor) -> Tensor:
    mean = _luma(images).mean((2, 3), keepdim=True)
    return (mean + factor * (images - mean)).clamp(0, 1)


def _saturation(images: Tensor, factor: Tensor) -> Tensor:
    grey = _luma(images)
    return (grey + factor * (images - grey)).clamp(0, 1)


def _hue(images: Tensor, shift: Tensor) -> Tensor:
    """Turn the hue by ``shift`` of a full circle."""
    value, brightest = images.max(1)  # (B, S, S)
    chroma = value - images.min(1).values
    red, green, blue = images.unbind(1)
    divisor = torch.where(chroma == 0, 1, chroma)
    sextant = torch.where(
        brightest == 0,
        (green - blue) / divisor,
        torch.where(brightest == 1, 2 + (blue - red) / divisor, 4 + (red - green) / divisor),
    )
    hue = sextant + 6 * shift[:, 0]
    # A channel is `value` less the chroma that its distance on the hue circle takes away.
    offsets = torch.tensor([5.0, 3.0, 1.0], device=images.device)[:, None, None]
    k = (offsets + hue[:, None]) % 6
    return value[:, None] - chroma[:, None] * torch.minimum(k, 4 - k).clamp(0, 1)


_JITTER_STEPS = (_brightness, _contrast, _saturation, _hue)


def _blur(images: Tensor, sigma: Tensor, largest: float) -> Tensor:
    """Gaussian blur with an own ``sigma`` (B,) per image, 0 for none; kernels reach four times ``largest``."""
    radius = min(int(4 * largest + 0.5), images.shape[2] - 1)
    rows = (sigma > 0).nonzero()[:, 0]
    picked = images[rows]
    count, channels, height, width = picked.shape
    if count == 0:
        return images
    offsets = torch.arange(-radius, radius + 1, device=images.device)
    kernel = torch.exp(-0.5 * (offsets / sigma[rows, None]) ** 2)  # (b, 2 radius + 1)
    kernel = (kernel / kernel.sum(1, keepdim=True)).repeat_interleave(channels, 0)[:, None]
    padded = F.pad(picked, (radius,) * 4, mode="reflect").reshape(1, count * channels, height + 2 * radius, -1)
    across = F.conv2d(padded, kernel[:, :, None, :], groups=count * channels)
    both = F.conv2d(across, kernel[:, :, :, None], groups=count * channels)
    return images.index_copy(0, rows, both.reshape(count, channels, height, width))
