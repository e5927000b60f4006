import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torchvision.transforms import ColorJitter, RandomResizedCrop

from bingo.philox import Stream, uniform
from bingo.views.parameters import draw, draw_for_teacher
from bingo.views.recipes import RECIPES

FEW = settings(deadline=None, max_examples=40)
SIDES = st.integers(1, 600)
PAPER = RECIPES["paper"]
MANY = 20_000
HEIGHT, WIDTH = 400, 560


def rows(parameters):
    """Every number of a view, one row per image."""
    columns = [value.double().reshape(len(value), -1) for value in vars(parameters).values()]
    return torch.cat(columns, 1).tolist()


def one_view(recipe, u, height, width):
    """Parameters of one image from its 35 uniform numbers, as torchvision's transforms would use them."""
    box = None
    for share, shape in zip(u[0:10], u[10:20], strict=True):
        area = height * width * (recipe.crop_scale[0] + (recipe.crop_scale[1] - recipe.crop_scale[0]) * share)
        low, high = (math.log(bound) for bound in recipe.crop_ratio)
        ratio = math.exp(low + (high - low) * shape)
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            box = [math.floor(u[20] * (height - h + 1)), math.floor(u[21] * (width - w + 1)), h, w]
            break
    if box is None:
        h, w = height, width
        if width / height < recipe.crop_ratio[0]:
            h = round(width / recipe.crop_ratio[0])
        elif width / height > recipe.crop_ratio[1]:
            w = round(height * recipe.crop_ratio[1])
        box = [(height - h) // 2, (width - w) // 2, h, w]
    strengths = [recipe.brightness, recipe.contrast, recipe.saturation, recipe.hue]
    factor = [1.0, 1.0, 1.0, 0.0]
    if u[23] < recipe.jitter:
        factor = [f - s + 2 * s * v for f, s, v in zip(factor, strengths, u[24:28], strict=True)]
    order = sorted(range(4), key=lambda step: u[28 + step])
    sigma = recipe.blur_sigma[0] + (recipe.blur_sigma[1] - recipe.blur_sigma[0]) * u[34] if u[33] < recipe.blur else 0
    return [*box, u[22] < recipe.flip, *factor, *order, u[32] < recipe.grayscale, sigma]


@pytest.fixture(scope="module")
def paper_views():
    return draw(PAPER, 0, np.arange(MANY), 0, 0, np.tile([HEIGHT, WIDTH], (MANY, 1)))


IMAGES = st.lists(st.tuples(st.integers(0, 2**32 - 1), SIDES, SIDES), min_size=1, max_size=20)


@FEW
@given(st.sampled_from(sorted(RECIPES)), IMAGES, st.integers(0, 2**32 - 1), st.integers(0, 1000), st.integers(0, 3))
def test_a_view_is_the_literal_recipe_for_each_image(name, images, seed, epoch, view):
    recipe, index, size = RECIPES[name], np.array(images)[:, 0], np.array(images)[:, 1:]
    height, width = torch.from_numpy(size).T
    found = {
        (seed, Stream.VIEW): draw(recipe, seed, index, epoch, view, size),
        # Of a teacher: on a stream of its own, without a seed.
        (0, Stream.TEACHER_VIEW): draw_for_teacher(recipe, index, epoch, view, size),
    }
    for (key, stream), parameters in found.items():
        u = uniform(key, stream, index, epoch, view, 35).tolist()
        expected = [one_view(recipe, numbers, int(h), int(w)) for numbers, (h, w) in zip(u, size, strict=True)]
        assert np.allclose(rows(parameters), np.array(expected, float), rtol=0, atol=1e-6)
        top, left, h, w = parameters.box.T
        assert (torch.stack([top, left, h - 1, w - 1, height - top - h, width - left - w]) >= 0).all()


@pytest.mark.parametrize("size", [(10, 1000), (1000, 10), (1, 300), (300, 1)])
def test_too_long_images_get_the_central_crop_of_torchvision(size):
    # No proposal of a fifth of the area or more fits, so torchvision's own draw is certain.
    expected = list(RandomResizedCrop.get_params(torch.empty(3, *size), [0.2, 1.0], [3 / 4, 4 / 3]))
    found = draw(PAPER, 0, np.arange(100), 0, 0, np.tile(size, (100, 1))).box
    assert found.tolist() == [expected] * 100


def measures(boxes):
    top, left, h, w = np.asarray(boxes, float).T
    place = {"place in height": (top + 0.5) / (HEIGHT - h + 1), "place in width": (left + 0.5) / (WIDTH - w + 1)}
    return {"area": h * w / (HEIGHT * WIDTH), "ratio": w / h, "top": top, "left": left, **place}


# With crops of up to half of the image every proposal fits, so the upper bound shows; with larger ones, the choice
# among proposals. Two samples of one distribution lie further apart once in ten thousand pairs; a bound of the scale
# wrong by 0.05, or of the ratio by a tenth, sets them 0.07 apart.
@pytest.mark.parametrize("scale", [(0.08, 1.0), (0.2, 0.5)])
def test_boxes_are_distributed_like_those_of_random_resized_crop(scale):
    torch.manual_seed(0)
    image = torch.empty(3, HEIGHT, WIDTH)
    theirs = measures([RandomResizedCrop.get_params(image, list(scale), [3 / 4, 4 / 3]) for _ in range(4000)])
    recipe = replace(PAPER, crop_scale=scale)
    ours = measures(draw(recipe, 0, np.arange(MANY), 0, 0, np.tile([HEIGHT, WIDTH], (MANY, 1))).box)
    distance = {name: stats.ks_2samp(ours[name], theirs[name]).statistic for name in ours}
    assert max(distance.values()) < 0.038, distance


def test_steps_are_taken_as_often_as_the_recipe_says(paper_views):
    jittered = (paper_views.factor[:, 0] != 1).float().mean()
    rates = [paper_views.flip.float().mean(), jittered, paper_views.grayscale.float().mean()]
    rates.append((paper_views.sigma > 0).float().mean())
    assert np.allclose(rates, [0.5, 0.8, 0.2, 0.5], atol=0.015)


def test_factors_are_distributed_like_those_of_color_jitter_and_blur_uniformly(paper_views):
    jitter = ColorJitter(0.4, 0.4, 0.4, 0.1)
    ranges = (jitter.brightness, jitter.contrast, jitter.saturation, jitter.hue)
    drawn = paper_views.factor[paper_views.factor[:, 0] != 1].double().numpy()
    for factors, (low, high) in zip(drawn.T, ranges, strict=True):
        assert stats.kstest(factors, stats.uniform(low, high - low).cdf).pvalue > 1e-3
    sigma = paper_views.sigma[paper_views.sigma > 0].double().numpy()
    assert stats.kstest(sigma, stats.uniform(0.1, 1.9).cdf).pvalue > 1e-3
    neutral = paper_views.factor[paper_views.factor[:, 0] == 1]
    assert (neutral == torch.tensor([1.0, 1.0, 1.0, 0.0])).all()


def test_jitter_takes_its_steps_in_every_order_equally_often(paper_views):
    orders, counts = np.unique(paper_views.order.numpy(), axis=0, return_counts=True)
    assert len(orders) == 24
    assert (np.sort(orders, axis=1) == np.arange(4)).all()
    assert stats.chisquare(counts).pvalue > 1e-3
