import io

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision.transforms.v2 import functional as V

from bingo.data import pictures as module
from bingo.data.decode import decode
from bingo.data.pictures import Picture, scale_of
from bingo.errors import BingoError
from bingo.views.apply import MODES

UPRIGHT, ORIENTATIONS = 1, range(1, 9)


def photo(height, width, seed=0):
    """A smooth picture with edges: bright discs on soft colours."""
    draw = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width] / max(height, width)
    pixels = np.zeros((height, width, 3))
    for channel in range(3):
        for frequency in (1, 3, 7):
            a, b, phase = draw.normal(size=3)
            pixels[..., channel] += np.sin(2 * np.pi * frequency * (a * x + b * y) + phase) / frequency
    pixels = 128 + 40 * pixels
    for _ in range(6):
        cy, cx, radius = draw.random(3) * [height / max(height, width), width / max(height, width), 0.15]
        pixels[(y - cy) ** 2 + (x - cx) ** 2 < radius**2] += draw.normal(scale=40, size=3)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def encode(image, orientation=UPRIGHT, format="JPEG", **options):
    buffer, exif = io.BytesIO(), Image.Exif()
    if orientation != UPRIGHT:
        exif[0x0112] = orientation
        options["exif"] = exif
    image.save(buffer, format, **({"quality": 95} | options if format == "JPEG" else options))
    return buffer.getvalue()


def picture_of(content):
    pixels = decode(content)
    return Picture("photo.jpg", content, tuple(pixels.shape[1:])), pixels


def whole_view(pixels, box, size, interpolation="bilinear"):
    """The view by way of a decoded image."""
    return V.resized_crop(pixels, *box, list(size), MODES[interpolation], antialias=True)


def difference(found, expected):
    return float((found.float() - expected.float()).abs().mean())


LIMIT = module.WHOLE_BELOW


@pytest.fixture(autouse=True)
def scale_small_images(monkeypatch):
    """Let images as small as tests want them be scaled."""
    monkeypatch.setattr(module, "WHOLE_BELOW", 0)


def test_images_below_a_megapixel_are_decoded_whole(monkeypatch):
    monkeypatch.setattr(module, "WHOLE_BELOW", LIMIT)
    assert scale_of((1024, 1024), (0, 0, 900, 900), (100, 100)) == 8
    assert scale_of((1024, 1023), (0, 0, 900, 900), (100, 100)) == 1
    assert scale_of((375, 500), (0, 0, 375, 500), (32, 32)) == 1


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(*[st.integers(1, 600)] * 4)
def test_the_scale_is_the_largest_that_enlarges_no_side(height, width, rows, columns):
    scale = scale_of((1200, 900), (3, 5, height, width), (rows, columns))
    fitting = [s for s in (1, 2, 4, 8) if height / s >= rows and width / s >= columns]
    assert scale == max(fitting, default=1)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize(
    "box", [(0, 0, 371, 501), (33, 71, 291, 257), (1, 2, 64, 64), (100, 200, 131, 129), (238, 369, 133, 132)]
)
def test_a_view_of_a_scaled_image_is_that_of_the_whole_one_within_two_levels(box, interpolation):
    picture, pixels = picture_of(encode(photo(371, 501)))
    for side in (64, 32, 16):
        found, expected = (f(box, (side, side), interpolation) for f in (picture.view, whole_of(pixels)))
        assert found.shape == (3, side, side)
        assert found.dtype == torch.uint8
        assert difference(found, expected) < 2
    assert picture._scaled


def whole_of(pixels):
    return lambda box, size, interpolation: whole_view(pixels, box, size, interpolation)


@pytest.mark.parametrize("scale", [2, 4, 8])
def test_places_in_a_scaled_image_are_kept_to_a_fraction_of_its_pixels(scale):
    # A crop that starts halfway in a scaled pixel: from the pixel's edge on, the ramp would be off by scale / 2 levels.
    ramp = np.tile(np.arange(256, dtype=np.uint8)[None, :, None], (256, 1, 3))
    for image in (ramp, ramp.transpose(1, 0, 2)):
        picture, pixels = picture_of(encode(Image.fromarray(np.ascontiguousarray(image))))
        box = (scale // 2, scale // 2, 16 * scale + 1, 16 * scale + 1)
        found = picture.view(box, (16, 16), "bilinear").float()
        assert list(picture._scaled) == [scale]
        # At the rim a scaled pixel reaches beyond the box; inside it is the same ramp.
        bias = (found - whole_view(pixels, box, (16, 16)).float())[:, 2:-2, 2:-2]
        assert bias.mean().abs() < 0.75  # of which rounding half a level up is the most


@pytest.mark.parametrize("size", [(96, 64), (99, 67)])
@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_scaled_images_stand_as_their_exif_orientation_says(orientation, size):
    content = encode(photo(*size), orientation)
    picture, pixels = picture_of(content)
    height, width = picture.size
    assert picture.jpeg_orientation == orientation
    for box, view_size in (((0, 0, height, width), (20, 20)), ((5, 9, 49, 51), (12, 12)), ((1, 1, 41, 50), (10, 10))):
        assert difference(picture.view(box, view_size, "bilinear"), whole_view(pixels, box, view_size)) < 2.5
    assert picture._scaled


@pytest.mark.parametrize(
    "content",
    [
        encode(photo(64, 64), format="PNG"),
        encode(photo(64, 64), format="WEBP", lossless=True),
        encode(photo(64, 64).convert("CMYK")),
    ],
    ids=["png", "webp", "cmyk"],
)
def test_what_libjpeg_cannot_scale_is_decoded_whole(content):
    picture, pixels = picture_of(content)
    assert picture.jpeg_orientation == 0
    assert torch.equal(picture.view((0, 0, 64, 64), (16, 16), "bilinear"), whole_view(pixels, (0, 0, 64, 64), (16, 16)))
    assert not picture._scaled


@pytest.mark.parametrize("options", [{"progressive": True}, {"subsampling": 0}, {"subsampling": 2}])
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_grey_progressive_and_subsampled_jpegs_are_scaled(mode, options):
    picture, pixels = picture_of(encode(photo(200, 150).convert(mode), **options))
    assert (
        difference(picture.view((0, 0, 200, 150), (40, 40), "bilinear"), whole_view(pixels, (0, 0, 200, 150), (40, 40)))
        < 2
    )
    assert list(picture._scaled) == [2]


@pytest.mark.parametrize("cut", [200, 1000, -300])
def test_a_truncated_jpeg_is_refused_at_every_scale(cut):
    content = encode(photo(128, 128))[:cut]
    for side in (16, 32, 64, 128):
        with pytest.raises(BingoError, match=r"^photo\.jpg: "):
            Picture("photo.jpg", content, (128, 128)).view((0, 0, 128, 128), (side, side), "bilinear")


def test_an_image_of_another_size_than_listed_is_refused():
    content = encode(photo(64, 48))
    for side in (8, 48):
        with pytest.raises(BingoError, match=r"^photo\.jpg: "):
            Picture("photo.jpg", content, (64, 64)).view((0, 0, 48, 48), (side, side), "bilinear")


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
def test_damaged_exif_data_turn_an_image_at_no_scale_otherwise_than_whole():
    draw = np.random.default_rng(0)
    for case in range(30):
        content = bytearray(encode(photo(64, 48), (3, 6, 8)[case % 3]))
        start = content.index(b"Exif\0\0") + 6
        length = int.from_bytes(content[start - 8 : start - 6]) - 8
        if case % 2:  # cut off
            kept = int(draw.integers(0, length))
            content[start - 8 : start - 6] = (kept + 8).to_bytes(2)
            del content[start + kept : start + length]
        else:
            content[start + int(draw.integers(0, length))] = int(draw.integers(0, 256))
        picture, pixels = picture_of(bytes(content))
        box, size = (0, 0, *picture.size), (picture.size[0] // 4, picture.size[1] // 4)
        assert difference(picture.view(box, size, "bilinear"), whole_view(pixels, box, size)) < 3
        assert list(picture._scaled) == [4]
