"""Listings of the demo, networks and runs of stages, for the tests of stages and of evaluation."""

import json
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
import torch
from torchvision.transforms import InterpolationMode, v2

from bingo.artifacts.provenance import digest_json
from bingo.artifacts.tensors import network_digest, read_metadata, write_tensors
from bingo.bags.bags import Bags, write_bags
from bingo.data import images
from bingo.data.arrays import DEMO
from bingo.data.images import open_images
from bingo.data.listing import read_listing
from bingo.models.backbone import build_backbone
from bingo.models.checkpoint import write_teacher
from bingo.models.head import mlp_head
from bingo.stages import targets
from bingo.study.images import DemoData
from bingo.study.jobs import DataJob, EvaluationJob, TargetsJob
from bingo.study.protocols import PROTOCOLS, TRANSFER_PROTOCOLS, Knn
from bingo.study.sections import Backbone, NetworkInput, Preprocessing, Steps
from bingo.training.distributed import is_first
from tests.stage import run_stage

CPU = torch.device("cpu")
COUNT = 42
TRAIN, VAL = 210, 60
SPEC = Backbone(architecture="resnet10", stem="small", width=1 / 8)
INPUT = NetworkInput(size=16, mean=[0.3, 0.4, 0.5], std=[0.3, 0.35, 0.4])


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
def write_listings():
    """List training images, and validation images if the data have any: (folder, data) -> their two paths."""

    def write(folder, data):
        train, val = folder / "train-listing.h5", folder / "val-listing.h5"
        run_stage(DataJob, split="train", data=data, output=train)
        if data.source == "demo" or data.val:
            run_stage(DataJob, split="val", data=data, train_listing=train, output=val)
        return train, val

    return write


@pytest.fixture(scope="session")
def list_demo(write_listings, tmp_path_factory):
    """List some of the demo's images: number of images -> path, listing, images."""

    @cache
    def list_demo(count):
        data = DemoData(source="demo", max_train=count, max_val=10)
        path, _ = write_listings(tmp_path_factory.mktemp("listing"), data)
        listing = read_listing(path, "train")
        return SimpleNamespace(path=path, listing=listing, images=open_images(listing))

    return list_demo


@pytest.fixture(scope="session")
def demo(list_demo):
    return list_demo(COUNT)


@pytest.fixture(scope="session")
def listings(write_listings, tmp_path_factory):
    """Listings of some training and some validation images of the demo."""
    return write_listings(tmp_path_factory.mktemp("evaluation"), DemoData(source="demo", max_train=TRAIN, max_val=VAL))


@pytest.fixture(scope="session")
def make_teacher(tmp_path_factory):
    """Write a teacher whose batch-norm statistics are not the initial ones: seed -> path, networks in eval mode."""

    @cache
    def make_teacher(seed=0, scale=1.0):
        torch.manual_seed(seed)
        backbone, head = build_backbone(SPEC), mlp_head(64, [16, 8])
        for _ in range(5):
            backbone(torch.randn(16, 3, 16, 16))
        backbone.layer4[-1].bn2.weight.data.mul_(scale)
        path = tmp_path_factory.mktemp("teacher") / "teacher.safetensors"
        write_teacher(path, SPEC, backbone.state_dict(), head.state_dict(), {"method": "moco"})
        return SimpleNamespace(path=path, backbone=backbone.eval().requires_grad_(False), head=head.eval())

    return make_teacher


@pytest.fixture(scope="session")
def teacher(make_teacher):
    return make_teacher()


@pytest.fixture(scope="session")
def backbone(teacher):
    return teacher.backbone


@pytest.fixture(scope="session")
def model(backbone, tmp_path_factory):
    """The backbone as a student's file."""
    path = tmp_path_factory.mktemp("model") / "backbone.safetensors"
    write_tensors(path, backbone.state_dict(), {"method": "moco", "backbone": SPEC.model_dump()})
    return path


@pytest.fixture(scope="session")
def transformer(tmp_path_factory):
    """The file of a teacher that takes images of 224 px alone."""
    spec = Backbone(architecture="timm/vit_tiny_patch16_224")
    path = tmp_path_factory.mktemp("teacher") / "transformer.safetensors"
    write_teacher(path, spec, build_backbone(spec).state_dict(), {}, {"method": "imported"})
    return path


@pytest.fixture(scope="session")
def centre_view():
    """Centre views that are not the whole image: resizing and cropping both show in features."""
    return Preprocessing(size=22, resize=25, mean=[0.286] * 3, std=[0.353] * 3)


@pytest.fixture(scope="session")
def features(listings, backbone, centre_view):
    """Features and labels of a split, from the demo's file by torchvision's transforms: float32 (N, D), int64 (N,)."""

    @cache
    def compute(split, interpolation="bilinear", whole=False):
        with h5py.File(listings[split == "val"]) as file:
            rows = file[f"{split}/index"][:]
        with h5py.File(DEMO) as file:
            pixels, labels = file[f"{split}/image"][:][rows], file[f"{split}/label"][:][rows].astype(np.int64)
        mode = InterpolationMode(interpolation)
        transform = v2.Compose(
            [
                v2.Resize(centre_view.size if whole else centre_view.resize, mode, antialias=True),
                v2.CenterCrop(centre_view.size),
                v2.ToDtype(torch.float32, scale=True),
                v2.Normalize(centre_view.mean, centre_view.std),
            ]
        )
        with torch.no_grad():
            views = torch.stack([transform(image.expand(3, -1, -1)) for image in torch.from_numpy(pixels)[:, None]])
            return backbone(views), torch.from_numpy(labels)

    return compute


@pytest.fixture
def shorten(monkeypatch):
    """Let a protocol keep its name but train for two epochs on small batches; kNN stays as it is."""

    def shorten(name, **changes):
        table = PROTOCOLS if name in PROTOCOLS else TRANSFER_PROTOCOLS
        protocol = table[name]
        if not isinstance(protocol, Knn):
            changes = {"epochs": 2, "batch_size": 64, **changes}
            if isinstance(getattr(protocol, "schedule", None), Steps):
                changes["schedule"] = Steps(milestones=[1], factor=0.1)
        monkeypatch.setitem(table, name, replace(protocol, **changes))
        return table[name]

    return shorten


@pytest.fixture
def evaluate(centre_view, listings, model, tmp_path):
    """Run the stage: (protocol, other fields) -> its job and the content of its result file."""

    def run(protocol, listings=listings, **changes):
        fields = {"model": "bingo", "weights": model, "target": "", "seed": 0, "output": tmp_path / "result.json"}
        fields |= {"preprocessing": centre_view, "listing": listings[0], "val_listing": listings[1], **changes}
        job = run_stage(EvaluationJob, protocol=protocol, **fields)
        return job, json.loads(job.output.read_text()) if is_first() else None

    return run


@pytest.fixture(scope="session")
def bags_of(demo, tmp_path_factory):
    """Write bags that hold the next three images: the teacher that they name, or None -> their path."""

    @cache
    def write(teacher_path):
        attributes = {"dataset_digest": demo.listing.digest, "provenance": {}}
        if teacher_path is not None:
            attributes["teacher_digest"] = network_digest(read_metadata(teacher_path))
        members = (np.arange(COUNT)[:, None] + [1, 2, 3]) % COUNT
        bags = Bags(np.arange(COUNT), np.arange(0, 3 * COUNT + 1, 3), members.reshape(-1), False, attributes=attributes)
        path = tmp_path_factory.mktemp("bags") / "bags.h5"
        write_bags(path, bags)
        return path

    return lambda teacher: write(None if teacher is None else teacher.path)


@pytest.fixture(scope="session")
def target_job(demo, teacher):
    """Return a job of the targets stage, with other fields on request."""
    settings = {"recipe": "small", "precision": "float32", "layer": "projection", "number": 0, "views": 2}
    files = {"listing": demo.path, "teacher": teacher.path, "output": Path("targets.h5")}
    return lambda **changes: TargetsJob(**{"preprocessing": INPUT, **settings, **files, **changes})


@pytest.fixture(scope="session")
def targets_of(target_job, demo, teacher, tmp_path_factory):
    """Run the targets stage on the demo, once for the same settings: path of its file."""
    done = {}

    def targets_of(listing=demo, teacher=teacher, **changes):
        job = target_job(listing=listing.path, teacher=teacher.path, **changes)
        key = digest_json([job.settings, str(listing.path), str(teacher.path)])
        if key not in done:
            done[key] = tmp_path_factory.mktemp("targets") / "targets.h5"
            targets.run(job.model_copy(update={"output": done[key]}), CPU, 0)
        return done[key]

    return targets_of
