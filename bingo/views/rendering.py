"""The pixels of views, from loader workers to what a network sees on the training device."""

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
    """Image files that the training device decodes: `bingo.data.nvjpeg.EncodedBatch`, say."""

    def crops(
        self, parameters: ViewParameters, size: int, interpolation: Interpolation, device: torch.device
    ) -> Tensor:
        """Return a view of each image: uint8 (B, 3, S, S) on ``device``."""


@dataclass(frozen=True)
class ViewPixels:
    """One view of each image of a batch, before what is done on the training device."""

    pixels: Tensor | EncodedImages
    """uint8: whole images (B, 3, H, W), or crops (B, 3, S, S); or files that the device decodes."""
    cropped: bool
    parameters: ViewParameters


def pin_views(views: Mapping[Key, ViewPixels]) -> dict[Key, ViewPixels]:
    """Return the same views, their pixels in memory from which a GPU copies by itself, while others compute."""
    pixels = {id(view.pixels): view.pixels for view in views.values()}  # several views may share theirs
    moved = {key: _pinned(shared) for key, shared in pixels.items()}
    return {name: replace(view, pixels=moved[id(view.pixels)]) for name, view in views.items()}


def _pinned(pixels: Tensor | EncodedImages) -> Tensor | EncodedImages:
    if not isinstance(pixels, Tensor):
        return pixels
    return pixels[:, :1].pin_memory().expand(-1, 3, -1, -1) if _one_for_three(pixels) else pixels.pin_memory()


def render(
    views: Mapping[Key, ViewPixels], recipe: Recipe, preprocessing: NetworkInput, device: torch.device
) -> Iterator[tuple[Key, Tensor]]:
    """Finish views on ``device``: yield float32 (B, 3, S, S) of each, normalised, in channels-last memory.

    Those that share their pixels go together, the others one after the other.
    """
    sharing: dict[int, tuple[Tensor, dict[Key, ViewPixels]]] = {}
    for name, view in views.items():
        if not isinstance(view.pixels, Tensor):
            crops = view.pixels.crops(view.parameters, preprocessing.size, recipe.interpolation, device)
            yield name, finish(crops, view.parameters, recipe, preprocessing, cropped=True)
        else:
            sharing.setdefault(id(view.pixels), (view.pixels, {}))[1][name] = view
    for shared, alike in sharing.values():
        parameters, cropped = (
            concatenate_parameters([view.parameters for view in alike.values()]),
            next(iter(alike.values())).cropped,
        )
        pixels = (shared[:, :1] if _one_for_three(shared) else shared).to(device, non_blocking=True)
        finished = finish(pixels, parameters, recipe, preprocessing, cropped)
        yield from zip(alike, finished.tensor_split(len(alike)), strict=True)


def _one_for_three(pixels: Tensor) -> bool:
    """Tell whether the channels (B, 3, H, W) of grey images are one, expanded."""
    return pixels.stride(1) == 0
