import io
import weakref
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
from bingo.views.colour import apply_colour
from bingo.views.parameters import ViewParameters, draw
from bingo.views.recipes import RECIPES, Recipe

PAPER = RECIPES["paper"]
INTERPOLATIONS = ["bilinear", "bicubic"]
ADJUST = (V.adjust_brightness, V.adjust_contrast, V.adjust_saturation, V.adjust_hue)


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


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
def test_crop_batch_takes_bytes_as_numbers_up_to_255(interpolation):
    pixels = (images(8, 20, 24) * 255).byte()
    parameters = views(PAPER, 8, 20, 24)
    found = crop_batch(pixels, parameters, 10, interpolation)
    assert found.dtype == torch.float32
    assert torch.equal(found, crop_batch(pixels.float(), parameters, 10, interpolation))


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
def test_a_crop_of_everything_at_the_same_size_changes_nothing(interpolation):
    batch = images(4, 16, 16)
    whole = replace(neutral(4), box=torch.tensor([[0, 0, 16, 16]]).repeat(4, 1))
    flipped = replace(whole, flip=torch.ones(4, dtype=torch.bool))
    assert torch.equal(crop_batch(batch, whole, 16, interpolation), batch)
    assert torch.equal(crop_batch(batch, flipped, 16, interpolation), batch.flip(3))


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


def test_crop_each_crops_an_image_in_every_view_and_lets_it_go():
    pixels = (images(6, 30, 22) * 255).byte()
    both = [draw(PAPER, 0, np.arange(6), 0, view, np.array([(30, 22)] * 6)) for view in (0, 1)]
    handed_out = []

    def one_by_one():
        for image in pixels:
            assert sum(reference() is not None for reference in handed_out) <= 1  # the one just cropped
            copy = encoded(image)
            handed_out.append(weakref.ref(copy))
            yield copy
            del copy

    together = crop_each(one_by_one(), both, 12, "bilinear")
    apart = [crop_each(map(encoded, pixels), [view], 12, "bilinear")[0] for view in both]
    assert all(torch.equal(found, expected) for found, expected in zip(together, apart, strict=True))


@pytest.mark.parametrize(("interpolation", "rounding"), [("bilinear", 1), ("bicubic", 1.2)])
def test_cropping_in_the_loader_or_on_the_device_gives_the_same_views_but_for_rounding(interpolation, rounding):
    pixels = (64 + images(10, 30, 22) * 127).byte()
    parameters = views(PAPER, 10, 30, 22)
    (in_loader,) = crop_each(map(encoded, pixels), [parameters], 12, interpolation)
    on_device = crop_batch(pixels, parameters, 12, interpolation)
    assert (in_loader.float() - on_device).abs().max() <= rounding


@pytest.mark.parametrize("step", range(4), ids=["brightness", "contrast", "saturation", "hue"])
def test_a_step_of_jitter_is_that_of_torchvision(step):
    low, high = (-0.5, 0.5) if step == 3 else (0.0, 2.0)
    batch = images(12, 16, 20)
    parameters = neutral(12)
    parameters.factor[:, step] = torch.linspace(low, high, 12)[torch.randperm(12)]
    expected = [ADJUST[step](image, factor) for image, factor in zip(batch, parameters.factor[:, step], strict=True)]
    assert torch.allclose(apply_colour(batch, parameters, PAPER), torch.stack(expected), atol=1e-5, rtol=0)


def test_jitter_takes_each_image_through_the_steps_in_its_own_order():
    batch = images(48, 16, 16)
    parameters = views(replace(PAPER, jitter=1.0, grayscale=0.0, blur=0.0), 48, 16, 16)
    assert len(parameters.order.unique(dim=0)) > 15
    expected = []
    for image, factor, order in zip(batch, parameters.factor.tolist(), parameters.order.tolist(), strict=True):
        for step in order:
            image = ADJUST[step](image, factor[step])
        expected.append(image)
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


@pytest.mark.parametrize("size", [28, 64, 65, 96])
@pytest.mark.parametrize("count", [1, 5])
def test_blur_is_torchvisions_at_every_size(size, count):
    torch.manual_seed(size)
    batch, sigma = torch.rand(count, 3, size, size), torch.linspace(0.1, 2.0, count)
    found = apply_colour(batch, replace(neutral(count), sigma=sigma), replace(PAPER, jitter=0.0))
    expected = [V.gaussian_blur(image, [17, 17], [float(s)]) for image, s in zip(batch, sigma, strict=True)]
    torch.testing.assert_close(found, torch.stack(expected), rtol=0, atol=1e-5)


def test_none_of_no_images_is_coloured():
    nothing = views(PAPER, 0, 16, 16)
    assert apply_colour(torch.empty(0, 3, 16, 16), nothing, PAPER).shape == (0, 3, 16, 16)


def test_blur_of_an_image_smaller_than_the_kernel_reaches_as_far_as_reflection_can():
    batch, sigma = images(6, 6, 6), [0.0, 0.1, 0.5, 1.0, 1.5, 2.0]
    found = apply_colour(batch, replace(neutral(6), sigma=torch.tensor(sigma)), replace(PAPER, jitter=0.0))
    expected = [V.gaussian_blur(image, [11, 11], [s]) for image, s in zip(batch[1:], sigma[1:], strict=True)]
    assert torch.equal(found[0], batch[0])
    assert torch.allclose(found[1:], torch.stack(expected), atol=1e-5, rtol=0)


def test_an_image_is_coloured_the_same_alone_as_in_a_batch():
    batch = images(12, 20, 20)
    parameters = views(PAPER, 12, 20, 20)
    together = apply_colour(batch, parameters, PAPER)
    for i in range(12):
        one = ViewParameters(*(value[i : i + 1] for value in vars(parameters).values()))
        assert torch.allclose(apply_colour(batch[i : i + 1], one, PAPER)[0], together[i], atol=1e-6, rtol=0)


def test_colour_leaves_its_input_alone_and_a_plain_recipe_leaves_the_images_alone():
    batch = images(6, 12, 12)
    before = batch.clone()
    changed = apply_colour(batch, views(PAPER, 6, 12, 12), PAPER)
    assert torch.equal(batch, before)
    assert not torch.equal(changed, before)
    assert torch.equal(apply_colour(batch, views(RECIPES["crop-flip"], 6, 12, 12), RECIPES["crop-flip"]), before)


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
