"""Drawing the parameters of random views: small tensors with one row per image."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bingo.philox import Stream, uniform
from bingo.views.recipes import Recipe

# Columns of the uniform draws of one view; their order is part of what a seed means.
_SCALE, _RATIO = slice(0, 10), slice(10, 20)
_TOP, _LEFT, _FLIP, _JITTER = 20, 21, 22, 23
_FACTORS, _ORDER = slice(24, 28), slice(28, 32)
_GRAYSCALE, _BLUR, _SIGMA = 32, 33, 34
_DRAWS = 35


@dataclass(frozen=True)
class ViewParameters:
    """One view of each of B images."""

    box: Tensor
    """(B, 4) int64: top, left, height, width of the crop in pixels of the source image."""
    flip: Tensor
    """(B,) bool."""
    factor: Tensor
    """(B, 4) float32: brightness, contrast, saturation (1 changes nothing), hue shift (0 changes nothing)."""
    order: Tensor
    """(B, 4) int64: the order in which the four are applied."""
    grayscale: Tensor
    """(B,) bool."""
    sigma: Tensor
    """(B,) float32: standard deviation of the blur in pixels, 0 for none."""

    def select(self, rows: Tensor | slice) -> "ViewParameters":
        """Return the parameters of some of the images."""
        return ViewParameters(*(value[rows] for value in vars(self).values()))


def concatenate_parameters(views: Sequence[ViewParameters]) -> ViewParameters:
    """Return the parameters of several views, one after the other."""
    return ViewParameters(*(torch.cat(values) for values in zip(*(vars(view).values() for view in views), strict=True)))


def draw(
    recipe: Recipe, seed: int, index: NDArray[np.int64], epoch: int, view: int, size: NDArray[np.int64]
) -> ViewParameters:
    """Draw view number ``view`` of the images at ``index`` (B,), whose heights and widths are ``size`` (B, 2).

    A pure function of (seed, image index, epoch, view), given the recipe and the image's size.
    """
    return _parameters(recipe, uniform(seed, Stream.VIEW, index, epoch, view, _DRAWS), size)


def draw_for_teacher(
    recipe: Recipe, index: NDArray[np.int64], epoch: int, view: int, size: NDArray[np.int64]
) -> ViewParameters:
    """Draw a view that a teacher sees: the same for every seed, so that its outputs serve every student."""
    return _parameters(recipe, uniform(0, Stream.TEACHER_VIEW, index, epoch, view, _DRAWS), size)


def _parameters(recipe: Recipe, u: NDArray[np.float64], size: NDArray[np.int64]) -> ViewParameters:
    strength = np.array([recipe.brightness, recipe.contrast, recipe.saturation, recipe.hue])
    neutral = np.array([1.0, 1.0, 1.0, 0.0])
    factor = neutral + strength * (2 * u[:, _FACTORS] - 1)
    factor = np.where(u[:, _JITTER, None] < recipe.jitter, factor, neutral)
    low, high = recipe.blur_sigma
    sigma = np.where(u[:, _BLUR] < recipe.blur, low + (high - low) * u[:, _SIGMA], 0.0)
    return ViewParameters(
        box=torch.from_numpy(_crop_boxes(recipe, u, size)),
        flip=torch.from_numpy(u[:, _FLIP] < recipe.flip),
        factor=torch.from_numpy(factor.astype(np.float32)),
        order=torch.from_numpy(np.argsort(u[:, _ORDER], axis=1)),
        grayscale=torch.from_numpy(u[:, _GRAYSCALE] < recipe.grayscale),
        sigma=torch.from_numpy(sigma.astype(np.float32)),
    )


def _crop_boxes(recipe: Recipe, u: NDArray[np.float64], size: NDArray[np.int64]) -> NDArray[np.int64]:
    """Boxes of RandomResizedCrop: the first of ten proposals that fits, else the largest central crop."""
    height, width = size[:, :1].astype(np.float64), size[:, 1:].astype(np.float64)  # (B, 1)
    scale_low, scale_high = recipe.crop_scale
    log_low, log_high = np.log(recipe.crop_ratio)
    area = height * width * (scale_low + (scale_high - scale_low) * u[:, _SCALE])  # (B, tries)
    ratio = np.exp(log_low + (log_high - log_low) * u[:, _RATIO])
    crop_width, crop_height = np.rint(np.sqrt(area * ratio)), np.rint(np.sqrt(area / ratio))
    fits = (crop_width > 0) & (crop_width <= width) & (crop_height > 0) & (crop_height <= height)

    rows, first = np.arange(len(u)), fits.argmax(axis=1)
    ratio_low, ratio_high = recipe.crop_ratio
    height, width, found = height[:, 0], width[:, 0], fits.any(axis=1)
    fallback_width = np.minimum(width, np.rint(height * ratio_high))
    fallback_height = np.minimum(height, np.rint(width / ratio_low))
    h = np.where(found, crop_height[rows, first], fallback_height)
    w = np.where(found, crop_width[rows, first], fallback_width)
    top = np.where(found, np.floor(u[:, _TOP] * (height - h + 1)), np.floor((height - h) / 2))
    left = np.where(found, np.floor(u[:, _LEFT] * (width - w + 1)), np.floor((width - w) / 2))
    return np.stack([top, left, h, w], axis=1).astype(np.int64)
