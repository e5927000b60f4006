from functools import cache
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from bingo.artifacts.provenance import digest_json
from bingo.artifacts.tensors import network_digest, read_metadata
from bingo.bags.bags import Bags, write_bags
from bingo.data import images
from bingo.data.images import open_images
from bingo.data.listing import read_listing
from bingo.models.backbone import build_backbone
from bingo.models.checkpoint import write_teacher
from bingo.models.head import mlp_head
from bingo.stages import targets
from bingo.study.images import DemoData
from bingo.study.jobs import DataJob, TargetsJob
from bingo.study.sections import Backbone, NetworkInput
from tests.stage import run_stage

CPU = torch.device("cpu")
COUNT = 42
torch.set_num_threads(1)


@pytest.fixture(autouse=True, scope="session")
def demo_in_memory():
    """Read the demo's file once for all tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(images, "load_arrays", cache(images.load_arrays))
        yield


@pytest.fixture(scope="session")
def preprocessing():
    return NetworkInput(size=16, mean=[0.3, 0.4, 0.5], std=[0.3, 0.35, 0.4])


@pytest.fixture(scope="session")
def list_demo(tmp_path_factory):
    """List some of the demo's images: number of images -> path, listing, images."""

    @cache
    def list_demo(count):
        path = tmp_path_factory.mktemp("listing") / "train-listing.h5"
        data = DemoData(source="demo", max_train=count)
        run_stage(DataJob, split="train", data=data, output=path)
        listing = read_listing(path, "train")
        return SimpleNamespace(path=path, listing=listing, images=open_images(listing))

    return list_demo


@pytest.fixture(scope="session")
def demo(list_demo):
    return list_demo(COUNT)


@pytest.fixture(scope="session")
def make_teacher(tmp_path_factory):
    """Write a teacher whose batch-norm statistics are of some use: seed -> path, and both networks in eval mode."""

    @cache
    def make_teacher(seed=0, scale=1.0):
        torch.manual_seed(seed)
        spec = Backbone(architecture="resnet10", stem="small", width=1 / 16)
        backbone, head = build_backbone(spec), mlp_head(32, [16, 8])
        for _ in range(5):
            backbone(torch.randn(16, 3, 16, 16))
        backbone.layer4[-1].bn2.weight.data.mul_(scale)
        path = tmp_path_factory.mktemp("teacher") / "teacher.safetensors"
        write_teacher(path, spec, backbone.state_dict(), head.state_dict(), {"method": "moco"})
        return SimpleNamespace(path=path, backbone=backbone.eval(), head=head.eval())

    return make_teacher


@pytest.fixture(scope="session")
def teacher(make_teacher):
    return make_teacher()


@pytest.fixture(scope="session")
def transformer(tmp_path_factory):
    """The file of a teacher that takes images of 224 px alone."""
    pytest.importorskip("timm")
    spec = Backbone(architecture="timm/vit_tiny_patch16_224")
    path = tmp_path_factory.mktemp("teacher") / "transformer.safetensors"
    write_teacher(path, spec, build_backbone(spec).state_dict(), {}, {"method": "imported"})
    return path


@pytest.fixture(scope="session")
def job_of(preprocessing, demo, teacher):
    """Return a job of the targets stage."""
    settings = {"recipe": "small", "precision": "float32", "layer": "projection", "number": 0, "views": 2}
    files = {"listing": demo.path, "teacher": teacher.path, "output": Path("targets.h5")}

    def job_of(**changes):
        return TargetsJob(**{"preprocessing": preprocessing, **settings, **files, **changes})

    return job_of


@pytest.fixture(scope="session")
def targets_of(job_of, demo, teacher, tmp_path_factory):
    """Run the targets stage on the demo, once for the same settings: path of its file."""
    done = {}

    def targets_of(listing=demo, teacher=teacher, **changes):
        job = job_of(listing=listing.path, teacher=teacher.path, **changes)
        key = digest_json([job.settings, str(listing.path), str(teacher.path)])
        if key not in done:
            done[key] = tmp_path_factory.mktemp("targets") / "targets.h5"
            targets.run(job.model_copy(update={"output": done[key]}), CPU, 0)
        return done[key]

    return targets_of


@pytest.fixture(scope="session")
def bags_of(demo, tmp_path_factory):
    """Write bags that hold the next three images, as made from a teacher, or from none: their path."""

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
