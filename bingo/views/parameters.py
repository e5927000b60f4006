"""Draw the parameters of augmented views: small tensors with one row per image."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bingo.philox import Stream, uniform
from bingo.views.recipes import Recipe

# Columns of a view's uniform draws. Changing them changes the views of every seed.
_SCALE, _RATIO = slice(0, 10), slice(10, 20)
_TOP, _LEFT, _FLIP, _JITTER = 20, 21, 22, 23
_FACTORS, _ORDER = slice(24, 28), slice(28, 32)
_GRAYSCALE, _BLUR, _SIGMA = 32, 33, 34
_DRAWS = 35


@dataclass(frozen=True)
class ViewParameters:
    """Augmentation parameters for one view of B images."""

    box: Tensor
    """(B, 4) int64: top, left, height, width of the crop in pixels of the source image."""
    flip: Tensor
    """(B,) bool."""
    factor: Tensor
    """(B, 4) float32: factors of brightness, contrast and saturation (1: no change), and hue shift (0: no change)."""
    order: Tensor
    """(B, 4) int64: order in which the four are applied."""
    grayscale: Tensor
    """(B,) bool."""
    sigma: Tensor
    """(B,) float32: standard deviation of the blur in pixels, 0 for none."""

    def select(self, rows: Tensor | slice) -> "ViewParameters":
        """Return the parameters of the images at ``rows``."""
        return ViewParameters(*(value[rows] for value in vars(self).values()))


def concatenate_parameters(views: Sequence[ViewParameters]) -> ViewParameters:
    """Concatenate the parameters of several views."""
    return ViewParameters(*(torch.cat(values) for values in zip(*(vars(view).values() for view in views), strict=True)))


def draw(
    recipe: Recipe, seed: int, index: NDArray[np.int64], epoch: int, view: int, size: NDArray[np.int64]
) -> ViewParameters:
    """Draw the parameters of a student's view. A pure function of its arguments.

    Args:
        recipe: augmentation recipe.
        seed: seed of the training, below 2**32.
        index: (B,) positions of the images in the listing.
        epoch: epoch, from 0.
        view: slot of the view (`View.slot`).
        size: (B, 2) height and width of the images in pixels.
    """
    return _parameters(recipe, uniform(seed, Stream.VIEW, index, epoch, view, _DRAWS), size)


def draw_for_teacher(
    recipe: Recipe, index: NDArray[np.int64], epoch: int, view: int, size: NDArray[np.int64]
) -> ViewParameters:
    """Like `draw`, for a view that a teacher sees. Does not depend on a seed, so that all students can share it."""
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
    """Return the boxes of RandomResizedCrop: the first of ten proposals that fits, else the largest centre crop."""
    height, width = size[:, :1].astype(np.float64), size[:, 1:].astype(np.float64)  # (B, 1)
    scale_low, scale_high = recipe.crop_scale
    log_low, log_high = np.log(recipe.crop_ratio)
    area = height * width * (scale_low + (scale_high - scale_low) * u[:, _SCALE])  # (B, tries)
    ratio = np.exp(log_low + (log_high - log_low) * u[:, _RATIO])
    crop_width, crop_height = np.rint(np.sqrt(area * ratio)), np.rint(np.sqrt(area / ratio))
    fits = (crop_width > 0) & (crop_width <= width) & (crop_height > 0) & (crop_height <= height)

    rows, first = np.arange(len(u)), fits.argmax(axis=1)
    ratio_low, ratio_high = recipe.crop_ratio
    height, width, any_fits = height[:, 0], width[:, 0], fits.any(axis=1)  # (B,)
    fallback_width = np.minimum(width, np.rint(height * ratio_high))
    fallback_height = np.minimum(height, np.rint(width / ratio_low))
    h = np.where(any_fits, crop_height[rows, first], fallback_height)
    w = np.where(any_fits, crop_width[rows, first], fallback_width)
    top = np.where(any_fits, np.floor(u[:, _TOP] * (height - h + 1)), np.floor((height - h) / 2))
    left = np.where(any_fits, np.floor(u[:, _LEFT] * (width - w + 1)), np.floor((width - w) / 2))
    return np.stack([top, left, h, w], axis=1).astype(np.int64)  # (B, 4)
