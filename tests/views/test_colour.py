from dataclasses import replace

import pytest
import torch
from torchvision.transforms.v2 import functional as V

from bingo.views.colour import apply_colour
from bingo.views.recipes import RECIPES

from .samples import images, neutral, views

PAPER = RECIPES["paper"]
ADJUST = (V.adjust_brightness, V.adjust_contrast, V.adjust_saturation, V.adjust_hue)


@pytest.mark.parametrize("step", range(4), ids=["brightness", "contrast", "saturation", "hue"])
def test_a_step_of_jitter_is_that_of_torchvision(step):
    low, high = (-0.5, 0.5) if step == 3 else (0.0, 2.0)
    batch = images(12, 16, 20)
    parameters = neutral(12)
    parameters.factor[:, step] = torch.linspace(low, high, 12)[torch.randperm(12)]
    expected = [ADJUST[step](image, factor) for image, factor in zip(batch, parameters.factor[:, step], strict=True)]
    assert torch.allclose(apply_colour(batch, parameters, PAPER), torch.stack(expected), atol=1e-5, rtol=0)


def test_colour_is_jitter_then_grayscale_then_blur():
    batch = images(40, 32, 32)
    parameters = views(PAPER, 40, 32, 32)
    expected = []
    for i, image in enumerate(batch):
        for step in parameters.order[i].tolist():
            image = ADJUST[step](image, parameters.factor[i, step].item())
        if parameters.grayscale[i]:
            image = V.rgb_to_grayscale(image, num_output_channels=3)
        if parameters.sigma[i] > 0:
            image = V.gaussian_blur(image, [17, 17], [parameters.sigma[i].item()])
        expected.append(image)
    found = apply_colour(batch, parameters, PAPER)
    assert torch.allclose(found, torch.stack(expected), atol=2e-5, rtol=0)
    assert found.min() >= 0
    assert found.max() <= 1 + 1e-6


def test_colour_leaves_its_input_alone_and_a_plain_recipe_leaves_the_images_alone():
    batch = images(6, 12, 12)
    before = batch.clone()
    changed = apply_colour(batch, views(PAPER, 6, 12, 12), PAPER)
    assert torch.equal(batch, before)
    assert not torch.equal(changed, before)
    assert torch.equal(apply_colour(batch, views(RECIPES["crop-flip"], 6, 12, 12), RECIPES["crop-flip"]), before)


# An image smaller than the kernel of 17 is blurred as far as reflection can reach.
@pytest.mark.parametrize(("size", "kernel"), [(6, 11), (28, 17), (64, 17), (65, 17), (96, 17)])
@pytest.mark.parametrize("count", [1, 5])
def test_blur_is_torchvisions_at_every_size(size, kernel, count):
    torch.manual_seed(size)
    batch, sigma = torch.rand(count + 1, 3, size, size), torch.cat([torch.zeros(1), torch.linspace(0.1, 2.0, count)])
    found = apply_colour(batch, replace(neutral(count + 1), sigma=sigma), replace(PAPER, jitter=0.0))
    expected = [V.gaussian_blur(image, [kernel] * 2, [float(s)]) for image, s in zip(batch[1:], sigma[1:], strict=True)]
    assert torch.equal(found[0], batch[0])
    torch.testing.assert_close(found[1:], torch.stack(expected), rtol=0, atol=1e-5)
