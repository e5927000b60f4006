import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from bingo.errors import BingoError
from bingo.export.transform import CentreView, preprocessing_of
from bingo.study.sections import Preprocessing

VIEW = CentreView(Preprocessing(size=16, resize=20))


@pytest.fixture
def turned():
    """The bytes of an image that lies on its side."""
    exif, stream = Image.Exif(), io.BytesIO()
    exif[0x0112] = 6
    pixels = np.random.default_rng(0).integers(0, 256, (24, 40, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(stream, "jpeg", exif=exif)
    return stream.getvalue()


def test_an_image_is_turned_upright_and_stays_as_it_was(turned):
    image = Image.open(io.BytesIO(turned))
    view = VIEW(image)
    assert (image.size, image.getexif()[0x0112]) == ((40, 24), 6)
    bare = Image.fromarray(np.asarray(image)).transpose(Image.Transpose.ROTATE_270)
    assert torch.equal(view, VIEW(bare))


@pytest.mark.parametrize("mode", ["I", "F"])
def test_pixels_without_a_range_are_refused(mode):
    with pytest.raises(BingoError, match=f"^image: .*{mode}"):
        VIEW(Image.new(mode, (24, 24)))


def test_a_truncated_image_is_refused(turned):
    with pytest.raises(BingoError, match=r"^image: "):
        VIEW(Image.open(io.BytesIO(turned[:-50])))


def test_a_shorter_side_that_is_smaller_than_the_input_is_refused():
    metadata = {"preprocessing": VIEW.preprocessing.model_dump()}
    with pytest.raises(BingoError, match=r"^x\.safetensors: .*\b12\b.*\b16\b"):
        preprocessing_of(metadata, 12, Path("x.safetensors"))
