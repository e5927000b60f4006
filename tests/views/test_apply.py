import io
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import CenterCrop, InterpolationMode, Resize
from torchvision.transforms.v2 import functional as V

from bingo.data.pictures import Picture
from bingo.study.sections import Preprocessing
from bingo.views.apply import centre_crop, crop_batch, crop_each, normalise
from bingo.views.parameters import draw
from bingo.views.recipes import RECIPES, Recipe

from .samples import images, neutral, views

PAPER = RECIPES["paper"]
INTERPOLATIONS = ["bilinear", "bicubic"]


def picture(height, width):
    """One image of bytes."""
    return (images(5, height, width)[4] * 255).byte()


def encoded(source):
    """The same as a file without loss."""
    file = io.BytesIO()
    pillow(source).save(file, "PNG")
    return Picture("photo.png", file.getvalue(), tuple(source.shape[1:]))


def pillow(source):
    return Image.fromarray(source.permute(1, 2, 0).numpy())


def tensor(image):
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
@pytest.mark.parametrize(
    ("height", "width", "size"),
    [(64, 48, 12), (20, 30, 40), (28, 28, 28), (9, 70, 16), (1, 1, 8), (33, 5, 10)],
)
def test_crop_batch_is_resized_crop_of_each_image(height, width, size, interpolation):
    batch = 1 + images(30, height, width)  # above 0, so that what bicubic overshoots is not cut
    parameters = views(Recipe(crop_scale=(0.05, 1.0), crop_ratio=(0.3, 3.0)), 30, height, width)
    expected = [
        V.resized_crop(image, *box, [size, size], InterpolationMode(interpolation), antialias=True)
        for image, box in zip(batch, parameters.box.tolist(), strict=True)
    ]
    expected = [V.horizontal_flip(view) if flip else view for view, flip in zip(expected, parameters.flip, strict=True)]
    assert 0 < parameters.flip.sum() < 30
    assert torch.allclose(crop_batch(batch, parameters, size, interpolation), torch.stack(expected), atol=1e-5, rtol=0)


def test_what_bicubic_overshoots_is_cut_to_the_range_of_bytes():
    # Beside the edge between black and white, the cubic filter goes beyond both.
    bars = torch.zeros(1, 3, 12, 12)
    bars[..., 4:8] = 255
    whole = replace(neutral(1), box=torch.tensor([[0, 0, 12, 12]]))
    uncut = V.resize(bars, [30, 30], InterpolationMode.BICUBIC, antialias=True)
    assert uncut.min() < -10
    assert uncut.max() > 265
    found = crop_batch(bars, whole, 30, "bicubic")
    assert torch.allclose(found, uncut.clamp(0, 255), atol=1e-3, rtol=0)
    (in_bytes,) = crop_each([encoded(bar) for bar in bars.byte()], [whole], 30, "bicubic")
    assert (found - in_bytes).abs().max() <= 0.51


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
def test_crop_each_is_pillows_crop_of_each_image(interpolation):
    sizes = np.array([(50, 40), (12, 90), (20, 20), (7, 5), (64, 64), (30, 41), (19, 23), (80, 33)])
    sources = [picture(h, w) for h, w in sizes.tolist()]
    parameters = draw(PAPER, 0, np.arange(8), 0, 0, sizes)
    (found,) = crop_each(map(encoded, sources), [parameters], 16, interpolation)
    assert found.dtype == torch.uint8
    for view, source, (top, left, height, width), flip in zip(
        found, sources, parameters.box.tolist(), parameters.flip.tolist(), strict=True
    ):
        crop = pillow(source).crop((left, top, left + width, top + height))
        expected = crop.resize((16, 16), Image.Resampling[interpolation.upper()])
        if flip:
            expected = expected.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        assert (view.int() - tensor(expected).int()).abs().max() <= 1


def test_normalise_is_that_of_torchvision_in_channels_last_memory():
    batch, preprocessing = images(5, 8, 8), Preprocessing(mean=[0.1, 0.5, 0.9], std=[0.2, 0.3, 0.4])
    found = normalise(batch, preprocessing)
    assert torch.allclose(found, V.normalize(batch, preprocessing.mean, preprocessing.std), atol=1e-6, rtol=0)
    assert found.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
@pytest.mark.parametrize(("height", "width"), [(40, 60), (60, 40), (20, 20), (24, 24), (10, 200)])
def test_the_evaluation_view_is_pillows_resize_and_centre_crop(height, width, interpolation):
    source = picture(height, width)
    expected = tensor(CenterCrop(16)(Resize(24, InterpolationMode(interpolation))(pillow(source))))
    found = centre_crop(source[None], Preprocessing(size=16, resize=24), interpolation)
    assert found.dtype == torch.uint8
    assert (found[0].int() - expected.int()).abs().max() <= 1


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
def test_the_evaluation_views_of_images_of_many_sizes_are_those_of_each(interpolation):
    sources = [picture(40, 60), picture(24, 24), picture(9, 31)]
    preprocessing = Preprocessing(size=16, resize=20)
    expected = torch.cat([centre_crop(source[None], preprocessing, interpolation) for source in sources])
    assert torch.equal(centre_crop(map(encoded, sources), preprocessing, interpolation), expected)
