import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from torch import nn
from torchvision.transforms import v2

from bingo.data.images import open_images
from bingo.data.listing import read_listing
from bingo.errors import BingoError
from bingo.models.backbone import build_backbone
from bingo.study.images import DemoData, FolderData
from bingo.study.jobs import DataJob
from bingo.study.sections import Backbone, Preprocessing
from bingo.training import embed as embedding
from bingo.training.embed import CentreViews, embed
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


def test_grey_images_have_three_channels_of_their_own_as_pinned_memory_asks(demo):
    [batch] = CentreViews(demo, Preprocessing(size=28, resize=28), "bilinear")
    assert batch.shape[1:] == (3, 28, 28)
    assert batch.is_contiguous()


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("batch", [1, 4, 256])
def test_pixels_reach_the_network_in_the_order_of_the_dataset(batch, workers, demo, preprocessing, monkeypatch):
    monkeypatch.setattr(embedding, "EMBED_BATCH", batch)
    parts = list(embed(nn.Flatten(), demo, preprocessing, CPU, workers, "bilinear"))
    assert [len(part) for part in parts[:-1]] == [batch] * (len(parts) - 1)
    expected = one_by_one(nn.Flatten(), demo, preprocessing)
    torch.testing.assert_close(torch.cat(parts), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("batch", [1, 8, 256])
def test_features_are_those_of_image_after_image_whatever_the_batch(batch, demo, preprocessing, monkeypatch):
    monkeypatch.setattr(embedding, "EMBED_BATCH", batch)
    torch.manual_seed(0)
    network = build_backbone(Backbone(architecture="resnet10", stem="small", width=1 / 8)).eval()
    features = torch.cat(list(embed(network, demo, preprocessing, CPU, 0, "bilinear")))
    assert features.dtype == torch.float32
    expected = one_by_one(network, demo, preprocessing)
    torch.testing.assert_close(features, expected, rtol=1e-4, atol=1e-4)


def test_loader_workers_change_no_bit(demo, preprocessing, monkeypatch):
    monkeypatch.setattr(embedding, "EMBED_BATCH", 5)
    torch.manual_seed(0)
    network = torchvision.models.shufflenet_v2_x0_5(num_classes=7).eval()  # any network will do
    alone, helped = (torch.cat(list(embed(network, demo, preprocessing, CPU, n, "bilinear"))) for n in (0, 2))
    assert torch.equal(alone, helped)


def test_a_folder_of_images_of_different_sizes_keeps_its_order(folder, preprocessing, monkeypatch):
    monkeypatch.setattr(embedding, "EMBED_BATCH", 3)
    features = torch.cat(list(embed(nn.Flatten(), folder, preprocessing, CPU, 0, "bilinear")))
    torch.testing.assert_close(features, one_by_one(nn.Flatten(), folder, preprocessing), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("workers", [0, 2])
def test_bicubic_views_are_resized_so_and_differ_from_bilinear_ones(workers, folder, preprocessing):
    features = torch.cat(list(embed(nn.Flatten(), folder, preprocessing, CPU, workers, "bicubic")))
    expected = one_by_one(nn.Flatten(), folder, preprocessing, "bicubic")
    torch.testing.assert_close(features, expected, rtol=1e-5, atol=1e-5)
    assert (features - one_by_one(nn.Flatten(), folder, preprocessing)).abs().max() > 0.1


def test_the_network_is_taken_as_it_is_and_no_graph_is_kept(demo, preprocessing):
    network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 4), nn.Dropout(0.5))
    features = next(embed(network.eval(), demo, preprocessing, CPU, 0, "bilinear"))
    assert not network.training
    assert features.requires_grad is False
    assert features.grad_fn is None


@pytest.mark.parametrize("workers", [0, 2])
def test_an_image_that_went_away_stops_with_its_name(workers, folder, preprocessing, tmp_path):
    (tmp_path / "3.png").unlink()
    with pytest.raises(BingoError) as caught:
        list(embed(nn.Flatten(), folder, preprocessing, CPU, workers, "bilinear"))
    assert str(tmp_path / "3.png") in str(caught.value)
    assert "\n" not in str(caught.value)
