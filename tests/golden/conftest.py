import numpy as np
import pytest
import torch

from bingo.artifacts.hdf5 import write_hdf5
from bingo.artifacts.tensors import network_digest, read_metadata, write_tensors
from bingo.bags.bags import Bags, write_bags
from bingo.data.listing import read_listing
from bingo.models.backbone import build_backbone
from bingo.models.head import mlp_head
from bingo.study.images import DemoData
from bingo.study.jobs import DataJob
from bingo.study.sections import Backbone, Preprocessing
from tests.stage import run_stage

torch.set_num_threads(1)

TRAIN, VAL = 64, 128


@pytest.fixture(scope="session")
def preprocessing():
    return Preprocessing(size=20, resize=24)


@pytest.fixture(scope="session")
def backbone():
    return Backbone(architecture="resnet10", stem="small", width=0.125)


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("golden")


@pytest.fixture(scope="session")
def listing_path(folder):
    data, output = DemoData(source="demo", max_train=TRAIN), folder / "train-listing.h5"
    return run_stage(DataJob, split="train", data=data, output=output).output


@pytest.fixture(scope="session")
def val_listing_path(folder, listing_path):
    data, output = DemoData(source="demo", max_val=VAL), folder / "val-listing.h5"
    return run_stage(DataJob, split="val", data=data, train_listing=listing_path, output=output).output


# What follows stands in for the results of earlier stages, so that a stage's numbers move with that stage alone.


@pytest.fixture(scope="session")
def teacher_path(folder, backbone):
    """A teacher of random weights."""
    torch.manual_seed(0)
    parts = {"backbone": build_backbone(backbone), "head": mlp_head(64, [32, 16])}
    tensors = {f"{part}.{name}": value for part, net in parts.items() for name, value in net.state_dict().items()}
    write_tensors(folder / "teacher.safetensors", tensors, {"backbone": backbone.model_dump(), "method": "moco"})
    return folder / "teacher.safetensors"


@pytest.fixture(scope="session")
def origin(listing_path, teacher_path):
    """Digests of dataset and teacher, as files made from them carry them."""
    dataset, teacher = read_listing(listing_path, "train").digest, network_digest(read_metadata(teacher_path))
    return {"dataset_digest": dataset, "teacher_digest": teacher, "provenance": {}}


@pytest.fixture(scope="session")
def embeddings_path(folder, origin):
    """Embeddings of random numbers."""
    features = np.random.default_rng(0).normal(size=(TRAIN, 16)).astype(np.float16)
    with write_hdf5(folder / "embeddings.h5", {**origin, "kind": "embeddings", "digest": "0" * 64}) as file:
        file["embedding"], file["index"] = features, np.arange(TRAIN)
    return folder / "embeddings.h5"


@pytest.fixture(scope="session")
def bags_path(folder, origin):
    """Bags that hold the next three images."""
    members = (np.arange(TRAIN)[:, None] + [1, 2, 3]) % TRAIN
    bags = Bags(np.arange(TRAIN), np.arange(0, 3 * TRAIN + 1, 3), members.reshape(-1), False, attributes=origin)
    write_bags(folder / "bags.h5", bags)
    return folder / "bags.h5"
