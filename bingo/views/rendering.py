"""Render views: from the pixels that loader workers read to the networks' input on the training device."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Protocol, TypeVar

import torch
from torch import Tensor

from bingo.study.sections import Interpolation, NetworkInput
from bingo.views.apply import finish
from bingo.views.parameters import ViewParameters, concatenate_parameters
from bingo.views.recipes import Recipe

Key = TypeVar("Key")


class EncodedImages(Protocol):
    """Encoded images that the training device decodes, for example `bingo.data.nvjpeg.EncodedBatch`."""

    def crops(
        self, parameters: ViewParameters, size: int, interpolation: Interpolation, device: torch.device
    ) -> Tensor:
        """Return the crop and flip of each image: uint8 (B, 3, S, S) on ``device``."""


@dataclass(frozen=True)
class ViewPixels:
    """One view of a batch, before the steps on the training device."""

    pixels: Tensor | EncodedImages
    """uint8 images (B, 3, H, W) or crops (B, 3, S, S), or encoded images; may be shared by several views."""
    cropped: bool
    parameters: ViewParameters


def pin_views(views: Mapping[Key, ViewPixels]) -> dict[Key, ViewPixels]:
    """Return the views with their pixels in pinned memory, from which a GPU copies asynchronously."""
    unique = {id(view.pixels): view.pixels for view in views.values()}
    pinned = {key: _pin(pixels) for key, pixels in unique.items()}
    return {name: replace(view, pixels=pinned[id(view.pixels)]) for name, view in views.items()}


def _pin(pixels: Tensor | EncodedImages) -> Tensor | EncodedImages:
    if not isinstance(pixels, Tensor):
        return pixels
    return pixels[:, :1].pin_memory().expand(-1, 3, -1, -1) if _is_grey(pixels) else pixels.pin_memory()


def render(
    views: Mapping[Key, ViewPixels], recipe: Recipe, preprocessing: NetworkInput, device: torch.device
) -> Iterator[tuple[Key, Tensor]]:
    """Render views on ``device``: yield the name and float32 (B, 3, S, S) of each, normalised, channels-last.

    Views that share their pixels are processed together.
    """
    groups: dict[int, tuple[Tensor, dict[Key, ViewPixels]]] = {}
    for name, view in views.items():
        if not isinstance(view.pixels, Tensor):
            crops = view.pixels.crops(view.parameters, preprocessing.size, recipe.interpolation, device)
            yield name, finish(crops, view.parameters, recipe, preprocessing, cropped=True)
        else:
            groups.setdefault(id(view.pixels), (view.pixels, {}))[1][name] = view
    for images, group in groups.values():
        parameters = concatenate_parameters([view.parameters for view in group.values()])
        cropped = next(iter(group.values())).cropped
        pixels = (images[:, :1] if _is_grey(images) else images).to(device, non_blocking=True)  # (B, 1 or 3, H, W)
        rendered = finish(pixels, parameters, recipe, preprocessing, cropped)  # (V B, 3, S, S)
        yield from zip(group, rendered.tensor_split(len(group)), strict=True)


def _is_grey(pixels: Tensor) -> bool:
    """Tell whether (B, 3, H, W) is one grey channel, expanded to three."""
    return pixels.stride(1) == 0
