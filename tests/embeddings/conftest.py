from types import SimpleNamespace

import pytest
import torch

from bingo.study.images import DemoData
from bingo.data.images import open_images
from bingo.data.listing import read_listing, write_listing
from bingo.study.jobs import DataJob
from bingo.models.backbone import build_backbone
from bingo.models.head import mlp_head
from bingo.study.sections import Backbone, Preprocessing
from bingo.artifacts.tensors import write_tensors

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def preprocessing():
    return Preprocessing(size=16, resize=20)


@pytest.fixture(scope="session")
def demo(tmp_path_factory):
    """Path, listing and images of 21 demo images."""
    path = tmp_path_factory.mktemp("listing") / "demo.h5"
    write_listing(DataJob(version=1, split="train", data=DemoData(source="demo", max_train=21)), "data", None, path, 1)
    listing = read_listing(path, "train")
    return SimpleNamespace(path=path, listing=listing, images=open_images(listing))


@pytest.fixture(scope="session")
def write_teacher(tmp_path_factory):
    """Write a teacher of random weights, the backbone's last layer scaled, and return its path."""
    folder = tmp_path_factory.mktemp("teachers")

    def write(seed=0, scale=1.0):
        name = f"{seed}-{scale}.safetensors"
        torch.manual_seed(seed)
        spec = Backbone(architecture="resnet10", stem="small", width=1 / 16)
        parts = {"backbone": build_backbone(spec), "head": mlp_head(32, [16, 8])}
        last = parts["backbone"].layer4[-1].bn2  # its output is added to the shortcut's: features grow with it
        last.weight.data.mul_(scale)
        tensors = {f"{part}.{key}": value for part, net in parts.items() for key, value in net.state_dict().items()}
        write_tensors(folder / name, tensors, {"backbone": spec.model_dump(), "method": "moco"})
        return folder / name

    return write
