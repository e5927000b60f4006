from functools import cache

import h5py
import numpy as np
import pytest
import torch

from bingo.config import DemoData
from bingo.data import images
from bingo.data.arrays import DEMO
from bingo.data.listing import write_listing
from bingo.jobs import DataJob
from bingo.models.backbone import build_backbone
from bingo.sections import Backbone, Preprocessing
from bingo.tensors import write_tensors


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    """Keep to one core; sums then also come in one order."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True, scope="session")
def demo_in_memory():
    """Read the demo's file once for all tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(images, "load_arrays", cache(images.load_arrays))
        yield


@pytest.fixture(scope="session")
def preprocessing():
    return Preprocessing(size=28, resize=28, mean=[0.286] * 3, std=[0.353] * 3)


@pytest.fixture(scope="session")
def write_listings():
    """List training images, and validation images where there are any: (folder, data) -> their two paths."""

    def write(folder, data):
        train, val = folder / "train-listing.h5", folder / "val-listing.h5"
        write_listing(DataJob(version=1, split="train", data=data), None, train, 1)
        if data.source == "demo" or data.val:
            write_listing(DataJob(version=1, split="val", data=data), train, val, 1)
        return train, val

    return write


@pytest.fixture(scope="session")
def listings(write_listings, tmp_path_factory):
    """Listings of 80 training and of 60 validation images of the demo."""
    return write_listings(tmp_path_factory.mktemp("evaluation"), DemoData(source="demo", max_train=80, max_val=60))


@pytest.fixture(scope="session")
def backbone():
    """A random network in eval mode; its batch-norm statistics are no longer the initial ones."""
    torch.manual_seed(0)
    network = build_backbone(Backbone(architecture="resnet10", stem="small", width=0.125))
    network(torch.randn(8, 3, 28, 28))
    return network.eval().requires_grad_(False)


@pytest.fixture(scope="session")
def model(backbone, tmp_path_factory):
    """The backbone as a student's file."""
    path = tmp_path_factory.mktemp("evaluation") / "backbone.safetensors"
    spec = {"architecture": "resnet10", "stem": "small", "width": 0.125}
    write_tensors(path, backbone.state_dict(), {"method": "moco", "backbone": spec})
    return path


@pytest.fixture(scope="session")
def features(listings, backbone):
    """Features and labels of a split, straight from the demo's file: split -> (float32 (N, D), int64 (N,))."""

    def compute(split, listing):
        with h5py.File(listing) as file:
            rows = file[f"{split}/index"][:]
        with h5py.File(DEMO) as file:
            pixels, labels = file[f"{split}/image"][:][rows], file[f"{split}/label"][:][rows].astype(np.int64)
        views = torch.from_numpy(pixels)[:, None].expand(-1, 3, -1, -1)
        with torch.no_grad():
            return backbone((views / 255 - 0.286) / 0.353), torch.from_numpy(labels)

    return {split: compute(split, path) for split, path in zip(("train", "val"), listings, strict=True)}
