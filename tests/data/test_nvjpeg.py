"""With a CPU's decoder in nvJPEG's place."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from bingo.data import nvjpeg
from bingo.data.decode import decode
from bingo.data.images import open_images
from bingo.data.listing import read_listing
from bingo.errors import BingoError
from bingo.study.method import View
from bingo.study.sections import Preprocessing
from bingo.training.batches import TrainingBatches
from bingo.training.embed import embed
from bingo.views.recipes import RECIPES

CPU = torch.device("cpu")
COUNT = 9
ON_CPU = Preprocessing(size=16, resize=18)
ON_DEVICE = ON_CPU.model_copy(update={"decoder": "nvjpeg"})


@pytest.fixture
def images(tmp_path, list_images):
    """JPEGs smaller than two views, so that the CPU scales none; and a PNG, and one that lies on its side."""
    (tmp_path / "train").mkdir()
    for i in range(COUNT):
        pixels = np.random.default_rng(i).integers(0, 256, (20 + i, 31 - i, 3), dtype=np.uint8)
        exif = Image.Exif()
        exif[0x0112] = 6 if i == 2 else 1
        Image.fromarray(pixels).save(tmp_path / "train" / f"{i}.{'png' if i == 4 else 'jpg'}", exif=exif)
    return open_images(read_listing(list_images(train=tmp_path / "train"), "train"))


@pytest.fixture
def decoded(monkeypatch):
    """Decode on the CPU what would go to nvJPEG; return how many files went there each time."""
    calls = []

    def decode_all(contents, device):
        calls.append(len(contents))
        return [decode(content) for content in contents]

    monkeypatch.setattr(nvjpeg, "_decode_jpegs", decode_all)
    return calls


def batches_of(images, preprocessing):
    views = {"query": View("anchor", 0), "key": View("anchor", 1)}
    return TrainingBatches(images, views, RECIPES["paper"], preprocessing, COUNT, 0, None)


@pytest.mark.parametrize("workers", [0, 1])
def test_training_sees_the_same_views_and_decodes_each_image_once(workers, images, decoded):
    cpu, device = batches_of(images, ON_CPU), batches_of(images, ON_DEVICE)
    for one, other in zip(cpu.batches(0, 2, 0), device.batches(0, 2, workers), strict=True):
        on_device, on_cpu = device.render(other.views, CPU), cpu.render(one.views, CPU)
        assert all(torch.equal(on_device[name], on_cpu[name]) for name in ("query", "key"))
    assert decoded == [COUNT - 2] * 2


def test_without_a_cuda_device_the_key_is_named(images):
    with pytest.raises(BingoError, match=r"^data\.preprocessing\.decoder: "):
        list(embed(nn.Flatten(), images, ON_DEVICE, CPU, 0, "bilinear"))
