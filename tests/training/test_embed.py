import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torchvision.transforms import v2

from bingo.data.images import open_images
from bingo.data.listing import read_listing
from bingo.models.backbone import build_backbone
from bingo.study.images import DemoData, FolderData
from bingo.study.jobs import DataJob
from bingo.study.sections import Backbone, Preprocessing
from bingo.training import embed as embedding
from bingo.training.embed import embed
from tests.stage import run_stage

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def preprocessing():
    return Preprocessing(size=16, resize=20)


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """Images of the demo, 21 of them."""
    data = DemoData(source="demo", max_train=21)
    return listed(data, tmp_path_factory.mktemp("listing") / "demo.h5")


def listed(data, path):
    run_stage(DataJob, split="train", data=data, output=path)
    return open_images(read_listing(path, "train"))


def one_by_one(network, images, preprocessing, interpolation="bilinear"):
    """Features by torchvision's own transforms, image after image."""
    transform = v2.Compose(
        [
            v2.Resize(preprocessing.resize, v2.InterpolationMode(interpolation), antialias=True),
            v2.CenterCrop(preprocessing.size),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(preprocessing.mean, preprocessing.std),
        ]
    )
    with torch.inference_mode():
        fetched = (next(iter(images.fetch(np.array([i])))) for i in range(len(images.listing)))
        pixels = (image if isinstance(image, torch.Tensor) else image.whole() for image in fetched)
        rows = [network(transform(image)[None]) for image in pixels]
    return torch.cat(rows)


@pytest.fixture
def folder(tmp_path):
    """Seven images of different sizes and formats."""
    draw = np.random.default_rng(0)
    for i in range(7):
        pixels = draw.integers(0, 256, size=(20 + 3 * i, 31 - 2 * i, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{i}.{'png' if i % 2 else 'jpg'}")
    return listed(FolderData(source="folder", train=str(tmp_path)), tmp_path / "listing.h5")


@pytest.mark.parametrize(("batch", "workers"), [(1, 0), (4, 2), (256, 0)])
def test_pixels_reach_the_network_in_the_order_of_the_dataset(batch, workers, demo, preprocessing, monkeypatch):
    monkeypatch.setattr(embedding, "EMBED_BATCH", batch)
    parts = list(embed(nn.Flatten(), demo, preprocessing, CPU, workers, "bilinear"))
    assert [len(part) for part in parts[:-1]] == [batch] * (len(parts) - 1)
    expected = one_by_one(nn.Flatten(), demo, preprocessing)
    torch.testing.assert_close(torch.cat(parts), expected, rtol=1e-5, atol=1e-5)


def test_features_are_those_of_image_after_image(demo, preprocessing, monkeypatch):
    monkeypatch.setattr(embedding, "EMBED_BATCH", 8)
    torch.manual_seed(0)
    network = build_backbone(Backbone(architecture="resnet10", stem="small", width=1 / 8)).eval()
    features = torch.cat(list(embed(network, demo, preprocessing, CPU, 0, "bilinear")))
    assert features.dtype == torch.float32
    assert not features.requires_grad
    assert not network.training
    torch.testing.assert_close(features, one_by_one(network, demo, preprocessing), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_a_folder_of_images_of_different_sizes_keeps_its_order(interpolation, folder, preprocessing, monkeypatch):
    monkeypatch.setattr(embedding, "EMBED_BATCH", 3)
    other = {"bilinear": "bicubic", "bicubic": "bilinear"}[interpolation]
    features = torch.cat(list(embed(nn.Flatten(), folder, preprocessing, CPU, 0, interpolation)))
    expected, different = (one_by_one(nn.Flatten(), folder, preprocessing, kind) for kind in (interpolation, other))
    torch.testing.assert_close(features, expected, rtol=1e-5, atol=1e-5)
    assert (features - different).abs().max() > 0.1
