import io
import struct
import zlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps
from PIL.PngImagePlugin import PngInfo

from bingo.data.decode import SUFFIXES, BadImageError, decode, jpeg_orientation

# A colour ramp that is its own mirror image along no axis.
RAMP = np.clip(np.add.outer(np.linspace(0, 200, 24), np.linspace(0, 55, 36))[..., None] * [1, 0.5, 0.8], 0, 255)
PICTURE = Image.fromarray(RAMP.astype(np.uint8))
NOISE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (12, 14, 3), dtype=np.uint8))
FORMATS = ("jpeg", "png", "webp", "gif")


def encode(image, kind, **options):
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def pixels(image):
    return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)


def png(values, cut=0):
    """A 16-bit PNG of (H, W) grey or (H, W, 3) coloured values, which Pillow cannot write; its last rows left out."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    height, width = values.shape[:2]
    header = struct.pack(">IIBBBBB", width, height, 16, 2 if values.ndim == 3 else 0, 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values[: height - cut])
    chunks = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


@pytest.mark.parametrize(
    ("mode", "kind"),
    [
        ("RGB", "jpeg"),
        ("RGB", "png"),
        ("RGB", "webp"),
        ("RGB", "gif"),
        ("L", "jpeg"),
        ("L", "png"),
        ("L", "gif"),
        ("1", "png"),
        ("P", "png"),
        ("P", "gif"),
        ("CMYK", "jpeg"),
        ("RGBA", "png"),
        ("RGBA", "webp"),
        ("LA", "png"),
    ],
)
def test_every_kind_of_image_becomes_the_rgb_that_pillow_sees(mode, kind):
    image = PICTURE.convert(mode)
    if mode.endswith("A"):
        image.putalpha(Image.fromarray(RAMP[..., 0].astype(np.uint8)))
    content = encode(image, kind)
    found = decode(content)
    assert found.dtype == torch.uint8
    assert found.shape == (3, 24, 36)
    assert (found.int() - pixels(Image.open(io.BytesIO(content))).int()).abs().max() <= 1


@pytest.mark.parametrize("transparency", [0, b"\x80" * 256], ids=["a colour", "shades"])
@pytest.mark.parametrize("kind", ["png", "gif"])
@pytest.mark.filterwarnings("error")
def test_a_transparent_palette_keeps_its_colours(kind, transparency):
    if kind == "gif" and transparency != 0:
        pytest.skip("GIF has no shades of transparency")
    image = PICTURE.convert("P")
    assert torch.equal(decode(encode(image, kind, transparency=transparency)), pixels(image))


@pytest.mark.parametrize("shape", [(24, 36), (24, 36, 3)], ids=["grey", "colour"])
def test_16_bit_images_are_scaled_to_8_bits(shape):
    values = np.random.default_rng(0).integers(0, 2**16, shape)
    found = decode(png(values))
    expected = torch.from_numpy(values / 257).reshape(24, 36, -1).permute(2, 0, 1)
    assert found.dtype == torch.uint8
    assert (found - expected).abs().max() < 1
    assert decode(png(np.full(shape, 2**16 - 1))).min() == 255


@pytest.mark.parametrize("kind", ["jpeg", "png"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_images_are_turned_upright_by_their_exif_orientation(kind, orientation):
    exif = Image.Exif()
    exif[0x112] = orientation
    content = encode(PICTURE, kind, exif=exif)
    found = decode(content)
    assert found.shape == ((3, 24, 36) if orientation < 5 else (3, 36, 24))
    assert torch.equal(found, pixels(ImageOps.exif_transpose(Image.open(io.BytesIO(content)))))


def test_only_a_grey_or_rgb_jpeg_has_an_orientation_to_scale_it_by():
    exif = Image.Exif()
    exif[0x112] = 6
    content = encode(PICTURE, "jpeg", exif=exif)
    assert jpeg_orientation(content) == 6
    assert jpeg_orientation(encode(PICTURE.convert("L"), "jpeg")) == 1
    others = [encode(PICTURE.convert("CMYK"), "jpeg"), encode(PICTURE, "png", exif=exif), content[:100], b""]
    assert [jpeg_orientation(other) for other in others] == [0, 0, 0, 0]


def test_of_an_animated_gif_the_first_picture_is_taken():
    other = Image.fromarray(255 - np.array(PICTURE))
    content = encode(PICTURE, "gif", save_all=True, append_images=[other])
    assert torch.equal(decode(content), pixels(Image.open(io.BytesIO(content))))


def test_animated_webp_is_refused():
    content = encode(PICTURE, "webp", save_all=True, append_images=[NOISE.resize(PICTURE.size)], lossless=True)
    with pytest.raises(BadImageError):
        decode(content)


def test_the_suffixes_are_those_of_formats_that_can_be_decoded():
    for suffix in SUFFIXES:
        kind = Image.registered_extensions()[suffix]
        assert decode(encode(PICTURE, kind)).shape == (3, 24, 36)


def test_pillows_limits_for_the_files_of_strangers_are_lifted():
    assert Image.MAX_IMAGE_PIXELS is None
    info = PngInfo()
    info.add_text("comment", "a" * 2**21, zip=True)
    assert torch.equal(decode(encode(PICTURE, "png", pnginfo=info)), pixels(PICTURE))


@settings(deadline=None, max_examples=60)
@given(st.sampled_from([b"", b"\xff\xd8\xff\xe0", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"RIFF\x20\0\0\0WEBP"]), st.binary())
def test_random_bytes_behind_a_true_beginning_are_refused(magic, content):
    with pytest.raises(BadImageError):
        decode(magic + content)


@pytest.mark.parametrize(
    "content",
    [b"", b"no image, but text", b"<html>404</html>", bytes(100), encode(PICTURE, "bmp"), encode(PICTURE, "png")[:-40]],
    ids=["empty", "text", "html", "zeros", "another format", "cut off"],
)
def test_files_that_are_no_image_are_refused_in_one_line(content):
    with pytest.raises(BadImageError) as error:
        decode(content)
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize("kind", FORMATS)
def test_an_image_cut_off_anywhere_is_refused_or_has_all_its_pixels(kind):
    content = encode(NOISE, kind)
    whole = decode(content)
    # All pixels of a PNG lie before two checksums and the twelve bytes that mark its end; those of a GIF before two.
    spare = {"png": 20, "gif": 2}.get(kind, 0)
    for length in range(len(content)):
        if length < len(content) - spare:
            with pytest.raises(BadImageError):
                decode(content[:length])
        else:
            assert torch.equal(decode(content[:length]), whole)


@pytest.mark.parametrize("shape", [(24, 36), (24, 36, 3)], ids=["grey", "colour"])
@pytest.mark.parametrize("cut", [1, 24])
def test_a_png_whose_rows_end_early_in_sound_chunks_is_refused(cut, shape):
    values = np.random.default_rng(0).integers(2**8, 2**16, shape)
    with pytest.raises(BadImageError):
        decode(png(values, cut))
    black = values * (np.arange(24) < 20).reshape(24, *[1] * (len(shape) - 1))
    assert decode(png(black))[:, -2:].max() == 0
