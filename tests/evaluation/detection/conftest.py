import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from bingo.artifacts.tensors import write_tensors
from bingo.evaluation.detection import network
from bingo.evaluation.detection.annotations import read_annotations
from bingo.evaluation.detection.coco import CocoImages
from bingo.models.backbone import build_backbone
from bingo.study.protocols import DETECTION_PROTOCOLS
from bingo.study.sections import Backbone, Steps

from .shapes import write_shapes


@pytest.fixture(scope="session")
def tiny():
    """A Mask R-CNN of three epochs on images of 32 px."""
    return replace(
        DETECTION_PROTOCOLS["mask-rcnn-small"],
        epochs=3,
        batch_size=2,
        schedule=Steps(milestones=[2], factor=0.1),
        warmup_steps=3,
        shorter_side=32,
        longer_side=64,
        anchors=(4, 8, 16, 32, 64),
    )


@pytest.fixture
def narrow(monkeypatch):
    """Build pyramids of 16 channels: training and its state are the faster for it."""
    monkeypatch.setattr(network, "_PYRAMID_CHANNELS", 16)


@pytest.fixture(scope="session")
def shapes(tmp_path_factory):
    """Folder and annotations of a training set of 5 images and of a validation set of 2."""
    folder = tmp_path_factory.mktemp("shapes")
    return {
        "train": write_shapes(folder / "train", images=5, seed=0, side=32),
        "val": write_shapes(folder / "val", images=2, seed=1, side=32),
    }


@pytest.fixture(scope="session")
def train_set(shapes):
    folder, annotations = shapes["train"]
    return CocoImages(folder, read_annotations(annotations, masks=True))


@pytest.fixture(scope="session")
def resnet(tmp_path_factory):
    """File of a random ResNet-10."""
    spec = Backbone(architecture="resnet10", width=1 / 16)
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("model") / "backbone.safetensors"
    write_tensors(path, build_backbone(spec).state_dict(), {"backbone": spec.model_dump()})
    return path


@pytest.fixture
def write_coco(tmp_path):
    """Write black images and annotations: (sizes, annotations) -> (folder, path).

    Sizes are (height, width); images are numbered from 1, categories are 3 and 7.
    """

    def write(sizes, annotations):
        for number, (height, width) in enumerate(sizes, start=1):
            Image.fromarray(np.zeros((height, width, 3), np.uint8)).save(tmp_path / f"{number}.png")
        images = [{"id": n, "file_name": f"{n}.png", "height": h, "width": w} for n, (h, w) in enumerate(sizes, 1)]
        categories = [{"id": 7, "name": "cat"}, {"id": 3, "name": "dog"}]
        path = tmp_path / "annotations.json"
        path.write_text(json.dumps({"images": images, "categories": categories, "annotations": annotations}))
        return tmp_path, path

    return write


@pytest.fixture
def open_coco(write_coco):
    """Write a set as `write_coco` does and open it."""

    def open_(sizes, annotations, masks=True):
        folder, path = write_coco(sizes, annotations)
        return CocoImages(folder, read_annotations(path, masks))

    return open_


def entry(box, image=1, category=3, iscrowd=0, **changes):
    """Return an annotation whose outline is its box (x, y, width, height)."""
    x, y, width, height = box
    return {
        "id": 0,
        "image_id": image,
        "category_id": category,
        "bbox": list(box),
        "area": width * height,
        "iscrowd": iscrowd,
        "segmentation": [[x, y, x + width, y, x + width, y + height, x, y + height]],
    } | changes
