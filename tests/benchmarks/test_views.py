import pytest
import torch
from torchvision.datasets import ImageFolder

from benchmarks.photos import HEIGHT, WIDTH, jpeg, photo, write_photos
from benchmarks.views import (
    CPU,
    PHOTO,
    SMALL,
    InMemory,
    OneByOne,
    ThreeViews,
    listed,
    ours,
    reference,
    small_images,
)
from bingo.data.images import open_images

torch.set_num_threads(1)
pytestmark = pytest.mark.slow


def statistics(batches, names):
    """Mean, deviation, and how much neighbouring pixels differ, of each view of all images."""
    found = []
    for views in zip(*(list(batch.values()) if names else batch for batch in batches), strict=True):
        pixels = torch.cat(list(views))
        assert pixels.dtype == torch.float32
        found.append(torch.stack([pixels.mean(), pixels.std(), pixels.diff(dim=3).abs().mean()]))
    return torch.stack(found)


def test_small_views_are_spread_as_the_references_are():
    torch.manual_seed(0)
    pixels = small_images(600)
    found = statistics(ours(InMemory(pixels), SMALL, 0, 256, CPU), True)
    expected = statistics(reference(OneByOne(pixels, ThreeViews(SMALL)), 0, 256), False)
    assert found.shape == expected.shape == (3, 3)
    torch.testing.assert_close(found, expected, rtol=0.1, atol=0.03)


def test_views_of_photographs_are_spread_as_the_references_are(tmp_path):
    torch.manual_seed(0)
    write_photos(tmp_path / "train", 72)
    found = statistics(ours(open_images(listed(tmp_path)), PHOTO, 0, 8, CPU), True)
    expected = statistics(reference(ImageFolder(str(tmp_path / "train"), ThreeViews(PHOTO)), 0, 8), False)
    assert found.shape == expected.shape == (3, 3)
    # Each view's mean has a standard error of 0.05 from the brightness alone.
    torch.testing.assert_close(found.mean(0), expected.mean(0), rtol=0.05, atol=0.1)


@pytest.mark.parametrize("number", [0, 1])
def test_photographs_are_the_same_each_time_and_of_a_photographs_size(number):
    assert photo(number).shape == (HEIGHT, WIDTH, 3)
    assert jpeg(number) == jpeg(number)
    assert 80_000 < len(jpeg(number)) < 130_000
