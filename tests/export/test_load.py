import numpy as np
import pytest
import torch
from PIL import Image

import bingo
from bingo.artifacts.tensors import write_tensors
from bingo.data.images import open_images
from bingo.data.listing import read_listing
from bingo.models.backbone import build_backbone
from bingo.models.checkpoint import load_teacher, write_teacher
from bingo.study.images import DemoData, FolderData
from bingo.study.jobs import DataJob
from bingo.study.sections import Backbone, Preprocessing
from bingo.training.embed import embed
from tests.importers.source_networks import settled
from tests.stage import run_stage

CPU = torch.device("cpu")
SPEC = Backbone(architecture="resnet10", stem="small", width=1 / 16)
VIEW = Preprocessing(size=16, resize=20, mean=[0.3, 0.4, 0.5], std=[0.1, 0.2, 0.3])


@pytest.fixture
def network():
    torch.manual_seed(0)
    return settled(build_backbone(SPEC))


@pytest.fixture
def embedded(network, tmp_path):
    """A teacher's file; and of some images the listing, and their features as embeddings and evaluations have them."""
    provenance = {"settings": {"preprocessing": VIEW.network_input().model_dump()}}
    teacher = tmp_path / "teacher.safetensors"
    write_teacher(teacher, SPEC, network.state_dict(), {}, {"method": "moco", "provenance": provenance})

    def embedded(data):
        run_stage(DataJob, split="train", data=data, output=tmp_path / "listing.h5")
        listing, backbone = read_listing(tmp_path / "listing.h5", "train"), load_teacher(teacher, CPU).backbone
        return teacher, listing, torch.cat(list(embed(backbone, open_images(listing), VIEW, CPU, 0, "bilinear")))

    return embedded


@pytest.fixture
def photos(tmp_path):
    """A folder of images of several sizes, formats and modes, two of them lying on their sides."""
    noise = np.random.default_rng(0)
    folder = tmp_path / "photos"
    folder.mkdir()
    for number, (mode, suffix) in enumerate(
        [("RGB", "png"), ("L", "png"), ("RGB", "jpg"), ("L", "jpg"), ("P", "gif"), ("RGBA", "png"), ("P", "png")]
    ):
        image = Image.fromarray(noise.integers(0, 256, (30 + number, 27 - number, 3), dtype=np.uint8)).convert(mode)
        image.save(folder / f"{number}.{suffix}")
    turned = Image.Exif()
    turned[0x0112] = 6
    image = Image.fromarray(noise.integers(0, 256, (24, 40, 3), dtype=np.uint8))
    image.save(folder / "turned.jpg", exif=turned)
    image.save(folder / "turned.webp", lossless=True, exif=turned)
    return folder


def test_features_of_files_are_those_of_the_pipeline(photos, embedded):
    teacher, listing, expected = embedded(FolderData(source="folder", train=str(photos), labels="none"))
    backbone = bingo.load_backbone(teacher, resize=20)
    views = [backbone.transform(Image.open(listing.path(i))) for i in range(len(listing))]
    assert [(view.dtype, view.shape) for view in views] == [(torch.float32, (3, 16, 16))] * 9
    torch.testing.assert_close(backbone(torch.stack(views)), expected, rtol=1e-5, atol=1e-5)


def test_features_of_arrays_are_those_of_the_pipeline(embedded):
    teacher, listing, expected = embedded(DemoData(source="demo", max_train=12))
    grey = open_images(listing).fetch(np.arange(12))[:, 0].numpy()
    backbone = bingo.load_backbone(str(teacher), "cpu", resize=20)
    views = torch.stack([backbone.transform(Image.fromarray(image)) for image in grey])
    torch.testing.assert_close(backbone(views), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("metadata", "preprocessing"),
    [
        # A student of this project records its training, an exported file the resizing too, an imported one nothing.
        (
            {"provenance": {"settings": {"preprocessing": VIEW.network_input().model_dump(), "seed": 0}}},
            VIEW.model_copy(update={"resize": round(16 * 256 / 224)}),
        ),
        ({"preprocessing": VIEW.model_dump()}, VIEW),
        ({}, Preprocessing()),
    ],
    ids=["student", "exported", "imported"],
)
def test_a_backbone_is_loaded_frozen_with_its_recorded_preprocessing(
    metadata, preprocessing, network, tmp_path, caplog
):
    path = tmp_path / "backbone.safetensors"
    write_tensors(path, network.state_dict(), {"backbone": SPEC.model_dump(), "method": "moco", **metadata})
    backbone = bingo.load_backbone(path)
    images = torch.randn(2, 3, 16, 16)
    assert torch.equal(backbone(images), network(images))
    assert not any(module.training for module in backbone.modules())
    assert not any(parameter.requires_grad for parameter in backbone.parameters())
    assert backbone.transform.preprocessing == preprocessing
    assert bingo.load_backbone(path, resize=240).transform.preprocessing.resize == 240
    assert {record.levelname for record in caplog.records} == (set() if metadata else {"WARNING"})
    assert all(str(path) in record.getMessage() for record in caplog.records)
