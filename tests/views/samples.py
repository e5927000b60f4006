"""Images and views that several tests need."""

import numpy as np
import torch

from bingo.views.parameters import ViewParameters, draw


def images(count, height, width, seed=0):
    """Smooth colours and noise, with grey, black, white and fully saturated images among them: float in [0, 1]."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 3, 4, 4, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear")
    made = (smooth + 0.2 * torch.randn(smooth.shape, generator=generator)).clamp(0, 1)
    made[0] = made[0, :1]
    made[1], made[2] = 0, 1
    made[3] = (made[3] > 0.5).float()
    return made


def views(recipe, count, height, width, seed=0):
    return draw(recipe, seed, np.arange(count), 0, 0, np.tile([height, width], (count, 1)))


def neutral(count):
    """A view that changes nothing, to switch single steps on."""
    return ViewParameters(
        box=torch.zeros(count, 4, dtype=torch.int64),
        flip=torch.zeros(count, dtype=torch.bool),
        factor=torch.tensor([[1.0, 1.0, 1.0, 0.0]]).repeat(count, 1),
        order=torch.arange(4).repeat(count, 1),
        grayscale=torch.zeros(count, dtype=torch.bool),
        sigma=torch.zeros(count),
    )
