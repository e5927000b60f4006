"""Jitter, grayscale and blur of cropped images, in few passes over memory."""

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
"""Side up to which products with matrices are the faster way to blur."""


def apply_colour(images: Tensor, parameters: ViewParameters, recipe: Recipe) -> Tensor:
    """Jitter, grayscale and blur images.

    Args:
        images: (B, C, S, S) float32 in [0, 1]; C is 3, or 1 for grey images, whose channels stay equal.
        parameters: one row per image, on the CPU: what is to be done is decided there, and a GPU never waited for.
        recipe: where it draws, ``parameters`` comes from it.

    Returns:
        (B, C, S, S), within 2e-5 of what torchvision's functions give, step by step.
    """
    drawn = {name: value.numpy() for name, value in vars(parameters).items()}
    order, factor = drawn["order"], np.take_along_axis(drawn["factor"], drawn["order"], 1)  # (B, steps)
    idle_last = np.argsort(factor == _NO_CHANGE[order], axis=1, kind="stable")
    order, factor = (np.take_along_axis(values, idle_last, 1) for values in (order, factor))
    hue, grey, blurred = drawn["factor"][:, _HUE], drawn["grayscale"], drawn["sigma"] > 0
    factor = np.where(order == _HUE, np.float32(1), factor)
    blend = np.stack([factor, (1 - factor) * (order == _SATURATION), (1 - factor) * (order == _CONTRAST)])

    # Images to which the same is done are put beside one another: a slice needs no copy.
    hue_place = np.where(hue != 0, (order == _HUE).argmax(1), _STEPS)
    by_hue = np.argsort(hue_place, kind="stable")
    starts = np.searchsorted(hue_place[by_hue], np.arange(_STEPS + 1))
    done = _take(images, by_hue)
    weights = blend[:, by_hue].transpose(2, 0, 1)[..., None, None, None]  # (steps, 3, B, 1, 1, 1)
    on_device = torch.from_numpy(weights).to(images.device, non_blocking=True)
    for place in range(_STEPS):
        turned = slice(starts[place], starts[place + 1])
        if turned.start < turned.stop:
            _hue(done[turned], hue[by_hue[turned]])
        if (weights[place, 0] != 1).any():
            _blend(done, on_device[place], greys=bool(weights[place, 1:].any()))

    last_steps = np.where(grey, np.where(blurred, 1, 0), np.where(blurred, 2, 3))[by_hue]
    by_last_steps = np.argsort(last_steps, kind="stable")
    starts = np.searchsorted(last_steps[by_last_steps], np.arange(4))
    done = _take(done, by_last_steps)
    if grey.any():
        done[: starts[2]] = _luma(done[: starts[2]])
    if blurred.any():
        to_blur = slice(starts[1], starts[3])
        done[to_blur] = _blur(done[to_blur], drawn["sigma"][by_hue[by_last_steps[to_blur]]], recipe)
    return _take(done, np.argsort(by_hue[by_last_steps]))


def _take(images: Tensor, rows: NDArray[np.int64]) -> Tensor:
    return images.index_select(0, torch.from_numpy(rows).to(images.device, non_blocking=True))


def _blend(images: Tensor, weights: Tensor, greys: bool) -> None:
    """Multiply images, add some of their greys and of their mean greys, all by ``weights`` (3, b, 1, 1, 1), in place.

    This moves an image away from black, from its grey or from its mean grey, or towards it.
    """
    factor, own_grey, mean_grey = weights
    if greys:
        grey = _luma(images)
        mean = grey.mean((2, 3), keepdim=True)
        torch.addcmul(grey.mul_(own_grey).add_(mean.mul_(mean_grey)), images, factor, out=images)
    else:
        images.mul_(factor)
    images.clamp_(0, 1)


def _luma(images: Tensor) -> Tensor:
    """Grey value of (b, C, S, S): (b, 1, S, S)."""
    if images.shape[1] == 1:
        return images * sum(_LUMA)
    grey = images[:, :1] * _LUMA[0]
    return grey.add_(images[:, 1:2], alpha=_LUMA[1]).add_(images[:, 2:], alpha=_LUMA[2])


def _hue(images: Tensor, shift: NDArray[np.float32]) -> None:
    """Turn the hue in place by ``shift`` (b,) of a full circle, a number from -1/2 to 1/2."""
    if images.shape[1] == 1:
        return
    red, green, blue = images.split(1, 1)  # (b, 1, S, S)
    low = torch.minimum(red, green)
    torch.minimum(low, blue, out=low)
    chroma = torch.maximum(red, green)
    torch.maximum(chroma, blue, out=chroma).sub_(low).clamp_(min=1e-12)
    # On a circle of length 6, red is at 0, green at 2, blue at -2. Of the three channels less `low`, in units of
    # `chroma`, one is 1 and one is 0; so the way to red is 1 + green + blue - red, and the nearer of the others says
    # to which side.
    hue = torch.add(green, blue).sub_(red).sub_(low).div_(chroma).add_(1).copysign_(green - blue)
    own = (_PRIMARIES - 6 * shift[:, None] + 3) % 6 - 3  # (b, 3), from -3 to 3
    places = torch.from_numpy(own[:, :, None, None]).to(images.device, non_blocking=True)
    torch.sub(hue, places, out=images)  # from -6 to 6
    # A channel has all of the chroma within 1 of its own place, and nothing beyond 2.
    images.abs_().sub_(3).abs_().clamp_(1, 2)
    torch.addcmul(low.sub_(chroma), images, chroma, out=images)


def _blur(images: Tensor, sigma: NDArray[np.float32], recipe: Recipe) -> Tensor:
    """Gaussian blur with an own ``sigma`` (b,) per image."""
    reach = min(int(4 * recipe.blur_sigma[1] + 0.5), images.shape[2] - 1)
    # Beyond 6 deviations a weight is below 2e-8 of the greatest one.
    reach = min(reach, int(np.ceil(6 * sigma.max())))
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1, dtype=np.float32) / sigma[:, None]) ** 2)
    kernel /= kernel.sum(1, keepdims=True)  # (b, 2 reach + 1)
    blur = _by_matrices if images.shape[2] <= _SMALL else _by_convolution
    return blur(images, torch.from_numpy(kernel).to(images.device, non_blocking=True))


def _by_matrices(images: Tensor, kernel: Tensor) -> Tensor:
    """Blur small images (b, C, S, S), each by its kernel (b, 2 radius + 1), as products with an S x S matrix."""
    count, channels, size, _ = images.shape
    spread = _reflected(size, kernel.shape[1] // 2).to(images.device, non_blocking=True)
    matrix = (kernel @ spread).view(count, size, size)
    across = torch.bmm(images.reshape(count, channels * size, size), matrix.transpose(1, 2))
    both = torch.bmm(matrix.repeat_interleave(channels, 0), across.view(count * channels, size, size))
    return both.view(images.shape)


@cache
def _reflected(size: int, radius: int) -> Tensor:
    """Say which pixel each place of a kernel meets, borders reflecting: one-hot (2 radius + 1, size * size)."""
    meets = (torch.arange(size)[:, None] + torch.arange(-radius, radius + 1)).abs()
    meets = torch.minimum(meets, 2 * size - 2 - meets)
    return F.one_hot(meets, size).float().transpose(0, 1).reshape(2 * radius + 1, -1)


def _by_convolution(images: Tensor, kernel: Tensor) -> Tensor:
    """Blur images (b, C, S, S), each by its kernel (b, 2 radius + 1), along one axis and then the other.

    To the convolution an image's columns are channels, next to one another in memory: so it reads whole vectors.
    """
    count, size = len(images), images.shape[2]
    radius = kernel.shape[1] // 2
    reflected = torch.arange(-radius, size + radius, device=images.device).abs()
    reflected = torch.minimum(reflected, 2 * size - 2 - reflected)
    weight = kernel.repeat_interleave(size, 0)[:, None, None]  # (b S, 1, 1, 2 radius + 1)
    for _ in range(2):  # along the rows, and then, what was turned, along the columns
        padded = images.permute(1, 2, 0, 3).index_select(1, reflected).flatten(2)  # (C, S + 2 radius, b S)
        convolved = F.conv2d(padded.transpose(1, 2)[:, :, None], weight, groups=count * size)[:, :, 0]  # (C, b S, S)
        images = convolved.unflatten(1, (count, size)).transpose(0, 1)
    return images
