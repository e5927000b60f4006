"""Colour jitter, grayscale and Gaussian blur of cropped images, in few passes over memory."""

from functools import cache

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from bingo.views.parameters import ViewParameters
from bingo.views.recipes import Recipe

_LUMA = (0.2989, 0.587, 0.114)
_CONTRAST, _SATURATION, _HUE = 1, 2, 3
_NO_CHANGE = np.array([1, 1, 1, 0], np.float32)
_PRIMARIES = np.array([0, 2, -2], np.float32)
_STEPS = 4
_SMALL = 64
"""Image size in pixels up to which blurring by matrix products is faster than by convolution."""


def apply_colour(images: Tensor, parameters: ViewParameters, recipe: Recipe) -> Tensor:
    """Apply colour jitter, grayscale and Gaussian blur.

    Args:
        images: (B, C, S, S) float32 in [0, 1]; C is 3, or 1 for grey images, whose channels stay equal.
        parameters: one row per image, on the CPU, so that control flow never waits for a GPU.
        recipe: recipe from which ``parameters`` were drawn.

    Returns:
        (B, C, S, S), within 2e-5 of torchvision's functions applied one by one.
    """
    drawn = {name: value.numpy() for name, value in vars(parameters).items()}
    order, factor = drawn["order"], np.take_along_axis(drawn["factor"], drawn["order"], 1)  # (B, steps)
    idle_last = np.argsort(factor == _NO_CHANGE[order], axis=1, kind="stable")
    order, factor = (np.take_along_axis(values, idle_last, 1) for values in (order, factor))
    hue, grey, blurred = drawn["factor"][:, _HUE], drawn["grayscale"], drawn["sigma"] > 0
    factor = np.where(order == _HUE, np.float32(1), factor)
    blend = np.stack([factor, (1 - factor) * (order == _SATURATION), (1 - factor) * (order == _CONTRAST)])

    # Sort the images by the step of their hue shift, so that each step's images are a slice, which needs no copy.
    hue_step = np.where(hue != 0, (order == _HUE).argmax(1), _STEPS)
    by_hue = np.argsort(hue_step, kind="stable")
    starts = np.searchsorted(hue_step[by_hue], np.arange(_STEPS + 1))
    out = _take(images, by_hue)
    weights = blend[:, by_hue].transpose(2, 0, 1)[..., None, None, None]  # (steps, 3, B, 1, 1, 1)
    on_device = torch.from_numpy(weights).to(images.device, non_blocking=True)
    for step in range(_STEPS):
        shifted = slice(starts[step], starts[step + 1])
        if shifted.start < shifted.stop:
            _hue(out[shifted], hue[by_hue[shifted]])
        if (weights[step, 0] != 1).any():
            _blend(out, on_device[step], greys=bool(weights[step, 1:].any()))

    # Sort again: grayscale only, grayscale and blur, blur only, neither.
    last_steps = np.where(grey, np.where(blurred, 1, 0), np.where(blurred, 2, 3))[by_hue]
    by_last_steps = np.argsort(last_steps, kind="stable")
    starts = np.searchsorted(last_steps[by_last_steps], np.arange(4))
    out = _take(out, by_last_steps)
    if grey.any():
        out[: starts[2]] = _luma(out[: starts[2]])
    if blurred.any():
        to_blur = slice(starts[1], starts[3])
        out[to_blur] = _blur(out[to_blur], drawn["sigma"][by_hue[by_last_steps[to_blur]]], recipe)
    return _take(out, np.argsort(by_hue[by_last_steps]))


def _take(images: Tensor, rows: NDArray[np.int64]) -> Tensor:
    return images.index_select(0, torch.from_numpy(rows).to(images.device, non_blocking=True))


def _blend(images: Tensor, weights: Tensor, greys: bool) -> None:
    """Blend images, in place, with black, their grey images and their mean greys, by ``weights`` (3, b, 1, 1, 1).

    These are torchvision's brightness, saturation and contrast adjustments.
    """
    factor, grey_weight, mean_weight = weights  # (b, 1, 1, 1) each
    if greys:
        grey = _luma(images)  # (b, 1, S, S)
        mean = grey.mean((2, 3), keepdim=True)  # (b, 1, 1, 1)
        torch.addcmul(grey.mul_(grey_weight).add_(mean.mul_(mean_weight)), images, factor, out=images)
    else:
        images.mul_(factor)
    images.clamp_(0, 1)


def _luma(images: Tensor) -> Tensor:
    """Convert (b, C, S, S) to grey (b, 1, S, S)."""
    if images.shape[1] == 1:
        return images * sum(_LUMA)
    grey = images[:, :1] * _LUMA[0]
    return grey.add_(images[:, 1:2], alpha=_LUMA[1]).add_(images[:, 2:], alpha=_LUMA[2])


def _hue(images: Tensor, shift: NDArray[np.float32]) -> None:
    """Shift the hue in place by ``shift`` (b,), a fraction of the full circle in [-1/2, 1/2]."""
    if images.shape[1] == 1:
        return
    red, green, blue = images.split(1, 1)  # (b, 1, S, S)
    low = torch.minimum(red, green)
    torch.minimum(low, blue, out=low)
    chroma = torch.maximum(red, green)
    torch.maximum(chroma, blue, out=chroma).sub_(low).clamp_(min=1e-12)
    # Hue on a circle of length 6: red at 0, green at 2, blue at -2. After subtracting `low` and dividing by `chroma`,
    # one channel is 1 and one is 0, so the distance to red is 1 + green + blue - red. The larger of green and blue
    # gives the sign.
    hue = torch.add(green, blue).sub_(red).sub_(low).div_(chroma).add_(1).copysign_(green - blue)
    primaries = (_PRIMARIES - 6 * shift[:, None] + 3) % 6 - 3  # (b, 3), in [-3, 3]: hue of each channel, shifted back
    on_device = torch.from_numpy(primaries[:, :, None, None]).to(images.device, non_blocking=True)
    torch.sub(hue, on_device, out=images)  # in [-6, 6]
    # A channel gets the full chroma within distance 1 of its hue, and none beyond distance 2.
    images.abs_().sub_(3).abs_().clamp_(1, 2)
    torch.addcmul(low.sub_(chroma), images, chroma, out=images)


def _blur(images: Tensor, sigma: NDArray[np.float32], recipe: Recipe) -> Tensor:
    """Apply a Gaussian blur with a ``sigma`` (b,) per image."""
    radius = min(int(4 * recipe.blur_sigma[1] + 0.5), images.shape[2] - 1)
    # Beyond 6 sigma, weights are below 2e-8 of the largest one.
    radius = min(radius, int(np.ceil(6 * sigma.max())))
    kernel = np.exp(-0.5 * (np.arange(-radius, radius + 1, dtype=np.float32) / sigma[:, None]) ** 2)
    kernel /= kernel.sum(1, keepdims=True)  # (b, 2 radius + 1)
    blur = _by_matrices if images.shape[2] <= _SMALL else _by_convolution
    return blur(images, torch.from_numpy(kernel).to(images.device, non_blocking=True))


def _by_matrices(images: Tensor, kernel: Tensor) -> Tensor:
    """Blur small images (b, C, S, S) with kernels (b, 2 radius + 1), by products with S x S matrices."""
    count, channels, size, _ = images.shape
    one_hot = _reflected(size, kernel.shape[1] // 2).to(images.device, non_blocking=True)
    matrix = (kernel @ one_hot).view(count, size, size)  # (b, S, S)
    rows = torch.bmm(images.reshape(count, channels * size, size), matrix.transpose(1, 2))  # (b, C S, S)
    both = torch.bmm(matrix.repeat_interleave(channels, 0), rows.view(count * channels, size, size))  # (b C, S, S)
    return both.view(images.shape)


@cache
def _reflected(size: int, radius: int) -> Tensor:
    """Return the pixel under each kernel tap at each output pixel, with reflected borders.

    One-hot: (2 radius + 1, size * size).
    """
    pixels = (torch.arange(size)[:, None] + torch.arange(-radius, radius + 1)).abs()  # (size, 2 radius + 1)
    pixels = torch.minimum(pixels, 2 * size - 2 - pixels)
    return F.one_hot(pixels, size).float().transpose(0, 1).reshape(2 * radius + 1, -1)


def _by_convolution(images: Tensor, kernel: Tensor) -> Tensor:
    """Blur images (b, C, S, S) with kernels (b, 2 radius + 1), by a 1-D convolution along each axis.

    An image's columns are the channels of the convolution and contiguous in memory, so it reads whole vectors.
    """
    count, size = len(images), images.shape[2]
    radius = kernel.shape[1] // 2
    reflected = torch.arange(-radius, size + radius, device=images.device).abs()
    reflected = torch.minimum(reflected, 2 * size - 2 - reflected)
    weight = kernel.repeat_interleave(size, 0)[:, None, None]  # (b S, 1, 1, 2 radius + 1)
    for _ in range(2):  # each pass convolves one axis and swaps the two
        padded = images.permute(1, 2, 0, 3).index_select(1, reflected).flatten(2)  # (C, S + 2 radius, b S)
        convolved = F.conv2d(padded.transpose(1, 2)[:, :, None], weight, groups=count * size)[:, :, 0]  # (C, b S, S)
        images = convolved.unflatten(1, (count, size)).transpose(0, 1)
    return images
