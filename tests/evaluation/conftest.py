import json
from dataclasses import replace
from functools import cache

import h5py
import numpy as np
import pytest
import torch
from torchvision.transforms import InterpolationMode, v2

from bingo.artifacts.tensors import write_tensors
from bingo.data import images
from bingo.data.arrays import DEMO
from bingo.data.images import open_images
from bingo.data.listing import read_listing
from bingo.evaluation.probe import Probe
from bingo.models.backbone import build_backbone
from bingo.study.images import DemoData
from bingo.study.jobs import DataJob, EvaluationJob
from bingo.study.protocols import PROTOCOLS, TRANSFER_PROTOCOLS, Finetune, Linear, LinearSweep
from bingo.study.sections import Backbone, Preprocessing, Steps

from ..stage import run_stage

TRAIN, VAL = 210, 60
CPU = torch.device("cpu")
SPEC = {"architecture": "resnet10", "stem": "small", "width": 0.125}


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
    """Centre views that are not the whole image: resizing and cropping both show in features."""
    return Preprocessing(size=22, resize=25, mean=[0.286] * 3, std=[0.353] * 3)


@pytest.fixture(scope="session")
def write_listings():
    """List training images, and validation images where there are any: (folder, data) -> their two paths."""

    def write(folder, data):
        train, val = folder / "train-listing.h5", folder / "val-listing.h5"
        run_stage(DataJob, split="train", data=data, output=train)
        if data.source == "demo" or data.val:
            run_stage(DataJob, split="val", data=data, train_listing=train, output=val)
        return train, val

    return write


@pytest.fixture(scope="session")
def listings(write_listings, tmp_path_factory):
    """Listings of some training and some validation images of the demo."""
    return write_listings(tmp_path_factory.mktemp("evaluation"), DemoData(source="demo", max_train=TRAIN, max_val=VAL))


@pytest.fixture(scope="session")
def backbone():
    """A random network in eval mode; its batch-norm statistics are no longer the initial ones."""
    torch.manual_seed(0)
    network = build_backbone(Backbone(**SPEC))
    network(torch.randn(8, 3, 28, 28))
    return network.eval().requires_grad_(False)


@pytest.fixture(scope="session")
def model(backbone, tmp_path_factory):
    """The backbone as a student's file."""
    path = tmp_path_factory.mktemp("evaluation") / "backbone.safetensors"
    write_tensors(path, backbone.state_dict(), {"method": "moco", "backbone": SPEC})
    return path


@pytest.fixture(scope="session")
def teacher(backbone, tmp_path_factory):
    """The same backbone with a projection head, as a teacher's file."""
    torch.manual_seed(1)
    head = {"0.weight": torch.randn(5, backbone.dim), "0.bias": torch.randn(5)}
    head |= {"2.weight": torch.randn(4, 5), "2.bias": torch.randn(4)}
    state = {f"backbone.{name}": tensor for name, tensor in backbone.state_dict().items()}
    state |= {f"head.{name}": tensor for name, tensor in head.items()}
    path = tmp_path_factory.mktemp("evaluation") / "teacher.safetensors"
    write_tensors(path, state, {"method": "moco", "backbone": SPEC})
    return path


@pytest.fixture(scope="session")
def features(listings, backbone, preprocessing):
    """Features and labels of a split, from the demo's file by torchvision's transforms: float32 (N, D), int64 (N,)."""

    @cache
    def compute(split, interpolation="bilinear", whole=False):
        with h5py.File(listings[split == "val"]) as file:
            rows = file[f"{split}/index"][:]
        with h5py.File(DEMO) as file:
            pixels, labels = file[f"{split}/image"][:][rows], file[f"{split}/label"][:][rows].astype(np.int64)
        resize = preprocessing.size if whole else preprocessing.resize
        transform = v2.Compose(
            [
                v2.Resize(resize, InterpolationMode(interpolation), antialias=True),
                v2.CenterCrop(preprocessing.size),
                v2.ToDtype(torch.float32, scale=True),
                v2.Normalize(preprocessing.mean, preprocessing.std),
            ]
        )
        with torch.no_grad():
            views = torch.stack([transform(image.expand(3, -1, -1)) for image in torch.from_numpy(pixels)[:, None]])
            return backbone(views), torch.from_numpy(labels)

    return compute


@pytest.fixture
def probe(listings, preprocessing):
    """A probe of the demo's images: (network, other fields)."""

    def make(backbone, **changes):
        train, val = (
            open_images(read_listing(path, split)) for path, split in zip(listings, ("train", "val"), strict=True)
        )
        return replace(Probe("bingo", "resnet10", backbone, train, val, preprocessing, 0, CPU, 0), **changes)

    return make


@pytest.fixture
def shorten(monkeypatch):
    """Let a protocol keep its name but train for two epochs on small batches; kNN stays as it is."""

    def shorten(name, **changes):
        table = PROTOCOLS if name in PROTOCOLS else TRANSFER_PROTOCOLS
        protocol = table[name]
        if isinstance(protocol, Linear | LinearSweep | Finetune):
            changes = {"epochs": 2, "batch_size": 64, **changes}
            if isinstance(getattr(protocol, "schedule", None), Steps):
                changes["schedule"] = Steps(milestones=[1], factor=0.1)
        monkeypatch.setitem(table, name, replace(protocol, **changes))

    return shorten


@pytest.fixture(scope="session")
def plain_sgd():
    """Train one classifier as anybody would: torch's layer, optimizer and loss -> weight (C, D), bias (C,)."""

    def train(batches, weight, bias, rates, weight_decay):
        layer = torch.nn.Linear(weight.shape[1], weight.shape[0])
        with torch.no_grad():
            layer.weight.copy_(weight)
            layer.bias.copy_(bias)
        optimizer = torch.optim.SGD(layer.parameters(), lr=1, momentum=0.9, weight_decay=weight_decay)
        for epoch, lr in enumerate(rates):
            optimizer.param_groups[0]["lr"] = lr
            for rows, labels in batches(epoch):
                optimizer.zero_grad()
                torch.nn.functional.cross_entropy(layer(rows), labels).backward()
                optimizer.step()
        return layer.weight.detach(), layer.bias.detach()

    return train


@pytest.fixture
def evaluate(preprocessing, listings, model, tmp_path):
    """Run the stage: (protocol, other fields) -> its job."""

    def run(protocol, listings=listings, weights=model, workers=0, **changes):
        fields = {"model": "bingo", "target": "", "seed": 0, "output": tmp_path / "result.json", **changes}
        fields |= {"preprocessing": preprocessing, "listing": listings[0], "val_listing": listings[1]}
        return run_stage(EvaluationJob, workers=workers, protocol=protocol, weights=weights, **fields)

    return run


@pytest.fixture
def measured(evaluate):
    """Run the stage: (protocol, other fields) -> what its result file holds."""

    def run(protocol, *arguments, **fields):
        return json.loads(evaluate(protocol, *arguments, **fields).output.read_text())

    return run
