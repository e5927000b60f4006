"""Jitter, grayscale and blur of cropped images: few passes over memory, and those over what a cache holds."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
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
_NEUTRAL = np.array([1, 1, 1, 0], np.float32)
_STEPS = 4
_CACHED = 2**18
"""Numbers of a part that go through all steps together on a CPU: 1 MiB."""
_SMALL = 64
"""Side up to which products with matrices are the faster way to blur."""


@dataclass(frozen=True)
class _Part:
    """What happens to b images of a batch, which are alike in when their hue is turned: that step is like no other."""

    rows: NDArray[np.int64]
    hue_place: int
    """Place of hue among the steps; `_STEPS` where there is none."""
    factor: NDArray[np.float32]
    """(b, steps) what an image's distance is multiplied by: from black, ..."""
    contrast: NDArray[np.bool_]
    """(b, steps) ... or from its mean grey, ..."""
    saturation: NDArray[np.bool_]
    """(b, steps) ... or from its grey."""
    hue: NDArray[np.float32]
    grayscale: NDArray[np.bool_]
    sigma: NDArray[np.float32]


def coloured(
    images: Tensor,
    parameters: ViewParameters,
    recipe: Recipe,
    crop: Callable[[Tensor, ViewParameters], Tensor] | None = None,
    white: float = 1.0,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Jitter, grayscale and blur images, part by part.

    Args:
        images: (B, C, H, W) in [0, ``white``]; C is 3, or 1 for grey images, whose channels stay equal.
        parameters: one row per image, on the CPU: what is to be done is decided there, and a GPU never waited for.
        recipe: where it draws, `parameters` comes from it.
        crop: makes (b, C, S, S) float32 of some of the images, which are whole; None where they are cropped.
        white: largest value.

    Yields:
        Positions (b,) of some of the images, on the CPU, and these images: (b, C, S, S) float32 in [0, 1], to be
        changed at will. Every image comes once. They equal what torchvision's functions give, step by step, within
        2e-5.
    """
    for part in _parts(parameters, images):
        rows = torch.from_numpy(part.rows)
        shown = images.index_select(0, rows.to(images.device, non_blocking=True))
        shown = shown.float() if crop is None else crop(shown, parameters.select(rows))
        if white != 1:
            shown.mul_(1 / white)
        _jitter(shown, part)
        if part.grayscale.any():
            grey = torch.from_numpy(np.flatnonzero(part.grayscale)).to(images.device, non_blocking=True)
            shown[grey] = _luma(shown.index_select(0, grey))
        radius = min(int(4 * recipe.blur_sigma[1] + 0.5), shown.shape[2] - 1)
        yield rows, _blur(shown, torch.from_numpy(part.sigma), radius)


def _parts(parameters: ViewParameters, images: Tensor) -> Iterator[_Part]:
    """Divide a batch. Steps that do nothing are put last."""
    drawn = {name: value.numpy() for name, value in vars(parameters).items()}
    order, factor = drawn["order"], np.take_along_axis(drawn["factor"], drawn["order"], 1)  # (B, steps)
    busy_first = np.argsort(factor == _NEUTRAL[order], axis=1, kind="stable")
    order, factor = (np.take_along_axis(values, busy_first, 1) for values in (order, factor))
    hue = drawn["factor"][:, _HUE]
    hue_place = np.where(hue != 0, (order == _HUE).argmax(1), _STEPS)
    factor = np.where(order == _HUE, np.float32(1), factor)
    contrast, saturation = ((order == step) & (factor != 1) for step in (_CONTRAST, _SATURATION))

    size = max(1, _CACHED // images.shape[1:].numel() if images.device.type == "cpu" else len(images))
    alike = [np.flatnonzero(hue_place == place) for place in range(_STEPS + 1)]
    parts = [group[start : start + size] for group in alike for start in range(0, len(group), size)]
    for rows in sorted(parts, key=lambda rows: int(rows[0])) if size == 1 else parts:
        columns = (factor, contrast, saturation, hue, drawn["grayscale"], drawn["sigma"])
        yield _Part(rows, int(hue_place[rows[0]]), *(column[rows] for column in columns))


def _jitter(images: Tensor, part: _Part) -> None:
    """Change brightness, contrast, saturation and hue in place, of each image in its own order."""
    for place in range(_STEPS):
        if place == part.hue_place:
            _hue(images, torch.from_numpy(part.hue))
        elif (part.factor[:, place] != 1).any():
            _blend(images, part.factor[:, place], part.contrast[:, place], part.saturation[:, place])


def _blend(
    images: Tensor, factor: NDArray[np.float32], contrast: NDArray[np.bool_], saturation: NDArray[np.bool_]
) -> None:
    """Multiply distances from black, from the mean grey, or from the grey, in place."""
    origins = []
    if contrast.any():
        origins.append(_luma(images.mean((2, 3), keepdim=True)).mul_(_beside((1 - factor) * contrast, images)))
    if saturation.any():
        origins.append(_luma(images).mul_(_beside((1 - factor) * saturation, images)))
    images.mul_(_beside(factor, images))
    for origin in origins:
        images.add_(origin)
    images.clamp_(0, 1)


def _beside(values: NDArray[np.generic], images: Tensor) -> Tensor:
    """Bring one value per image, (b,), to where (b, C, S, S) are: (b, 1, 1, 1)."""
    return torch.from_numpy(values)[:, None, None, None].to(images.device, non_blocking=True)


def _luma(images: Tensor) -> Tensor:
    """Grey value of (b, C, S, S): (b, 1, S, S)."""
    if images.shape[1] == 1:
        return images * sum(_LUMA)
    grey = images[:, :1] * _LUMA[0]
    return grey.add_(images[:, 1:2], alpha=_LUMA[1]).add_(images[:, 2:], alpha=_LUMA[2])


def _hue(images: Tensor, shift: Tensor) -> None:
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
    own = (torch.tensor([0.0, 2.0, -2.0]) - 6 * shift[:, None] + 3) % 6 - 3  # (b, 3), from -3 to 3
    torch.sub(hue, own[:, :, None, None].to(images.device, non_blocking=True), out=images)  # from -6 to 6
    # A channel has all of the chroma within 1 of its own place, and nothing beyond 2.
    images.abs_().sub_(3).abs_().clamp_(1, 2)
    torch.addcmul(low.sub_(chroma), images, chroma, out=images)


def _blur(images: Tensor, sigma: Tensor, radius: int) -> Tensor:
    """Gaussian blur with an own ``sigma`` (b,) per image, 0 for none, by kernels that reach ``radius`` pixels."""
    rows = (sigma > 0).nonzero()[:, 0]
    if len(rows) == 0:
        return images
    offsets = torch.arange(-radius, radius + 1)
    kernel = torch.exp(-0.5 * (offsets / sigma[rows, None]) ** 2)  # (b, 2 radius + 1)
    kernel = (kernel / kernel.sum(1, keepdim=True)).to(images.device, non_blocking=True)
    rows = rows.to(images.device, non_blocking=True)
    picked = images if len(rows) == len(images) else images.index_select(0, rows)
    blurred = (_by_matrices if images.shape[2] <= _SMALL else _by_convolution)(picked, kernel)
    return blurred if len(rows) == len(images) else images.index_copy(0, rows, blurred)


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
