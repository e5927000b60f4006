import subprocess
import sys
from dataclasses import asdict

import pytest

from bingo.evaluation.linear import training_views
from bingo.study.protocols import (
    DETECTION_PROTOCOLS,
    PROTOCOLS,
    TRANSFER_PROTOCOLS,
    Linear,
    published_name,
    split_name,
)
from bingo.study.sections import Steps

CROP_FLIP = {
    "crop_scale": (0.08, 1.0),
    "crop_ratio": (3 / 4, 4 / 3),
    "flip": 0.5,
    "jitter": 0.0,
    "brightness": 0.0,
    "contrast": 0.0,
    "saturation": 0.0,
    "hue": 0.0,
    "grayscale": 0.0,
    "blur": 0.0,
    "blur_sigma": (0.1, 2.0),
    "interpolation": "bilinear",
}


def knn(k, temperature=None, interpolation="bilinear"):
    return {"kind": "Knn", "k": k, "temperature": temperature, "interpolation": interpolation}


def semi(labels):
    return {
        "kind": "Finetune",
        "labels": labels,
        "epochs": 20,
        "batch_size": 256,
        "backbone_lr": 0.01,
        "head_lr": 0.2,
        "schedule": {"milestones": [12, 16], "factor": 0.2},
    }


def detection(masks):
    return {
        "kind": "Detection",
        "masks": masks,
        "epochs": 12,
        "batch_size": 16,
        "lr": 0.02,
        "weight_decay": 1e-4,
        "schedule": {"milestones": [8, 11], "factor": 0.1},
        "warmup_steps": 1000,
        "shorter_side": 800,
        "longer_side": 1333,
        "anchors": (32, 64, 128, 256, 512),
    }


def small_detection(masks):
    return detection(masks) | {
        "batch_size": 8,
        "warmup_steps": 20,
        "shorter_side": 128,
        "longer_side": 256,
        "anchors": (8, 16, 32, 64, 128),
    }


MOCO = {
    "kind": "Linear",
    "epochs": 100,
    "batch_size": 256,
    "lr": 30.0,
    "weight_decay": 0.0,
    "schedule": {"milestones": [60, 80], "factor": 0.1},
    "final_lr": 0.0,
    "efficientnet_lr": None,
    "views": CROP_FLIP,
    "standardise": False,
    "interpolation": "bilinear",
    "whole": False,
}

# A name stands for these hyper-parameters in every table that was ever made. So do not edit a line here to make the
# test pass: a variant gets a name of its own, and a line of its own.
FROZEN = {
    "linear-moco": MOCO,
    "linear-seed": MOCO,
    "linear-bingo": MOCO | {"epochs": 120, "schedule": "cosine", "final_lr": 0.01, "efficientnet_lr": 3.0},
    "linear-moco-small": MOCO | {"lr": 0.1, "views": None, "standardise": True},
    "linear-cached": {
        "kind": "LinearSweep",
        "epochs": 100,
        "batch_size": 256,
        "lrs": (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0),
        "held_out": 0.1,
    },
    "knn-1": knn(1),
    "knn-10": knn(10),
    "knn-20": knn(20),
    "knn-dino-10": knn(10, 0.07, "bicubic"),
    "knn-dino-20": knn(20, 0.07, "bicubic"),
    "knn-dino-100": knn(100, 0.07, "bicubic"),
    "knn-dino-200": knn(200, 0.07, "bicubic"),
    "semi-1": semi(0.01) | {"backbone_lr": 0.02, "head_lr": 5.0},
    "semi-10": semi(0.1),
}
FROZEN_TRANSFER = {
    "linear": MOCO
    | {
        "epochs": 200,
        "lr": 3.0,
        "schedule": None,
        "views": CROP_FLIP | {"interpolation": "bicubic"},
        "interpolation": "bicubic",
        "whole": True,
    },
    "finetune": semi(1.0),
}
FROZEN_DETECTION = {
    "mask-rcnn": detection(True),
    "faster-rcnn": detection(False),
    "mask-rcnn-small": small_detection(True),
    "faster-rcnn-small": small_detection(False),
}


def plain(protocol):
    values = asdict(protocol)
    assert values.pop("source")
    if isinstance(protocol, Linear) and protocol.views is not None:
        values["views"] = asdict(training_views(protocol))
    if isinstance(values.get("schedule"), Steps):
        values["schedule"] = values["schedule"].model_dump()
    return {"kind": type(protocol).__name__, **values}


@pytest.mark.parametrize(
    ("protocols", "frozen"),
    [(PROTOCOLS, FROZEN), (TRANSFER_PROTOCOLS, FROZEN_TRANSFER), (DETECTION_PROTOCOLS, FROZEN_DETECTION)],
    ids=["classification", "transfer", "detection"],
)
def test_the_hyper_parameters_of_a_name_never_change(protocols, frozen):
    assert {name: plain(protocol) for name, protocol in protocols.items()} == frozen


def test_a_name_means_one_protocol():
    tables = (PROTOCOLS, TRANSFER_PROTOCOLS, DETECTION_PROTOCOLS)
    assert len({name for table in tables for name in table}) == sum(map(len, tables))


@pytest.mark.parametrize("target", ["cifar10", "my-birds_2", "knn", "linear", "birds"])
def test_a_name_is_split_into_the_target_that_begins_it_and_a_protocol(target):
    for name in (*TRANSFER_PROTOCOLS, *DETECTION_PROTOCOLS, *PROTOCOLS):
        assert split_name(f"{target}-{name}", ["other", target]) == (target, name)


def test_a_protocol_of_the_studys_own_images_has_no_target_whatever_targets_there_are():
    for name in PROTOCOLS:
        assert split_name(name, []) == ("", name)
        assert split_name(name, ["knn", "linear", "semi", "linear-moco"]) == ("", name)


@pytest.mark.parametrize("order", [["birds", "birds-2"], ["birds-2", "birds"]])
def test_of_targets_that_begin_alike_the_longest_counts(order):
    assert split_name("birds-2-linear", order) == ("birds-2", "linear")
    assert split_name("birds-linear", order) == ("birds", "linear")


def test_a_name_that_begins_with_no_target_is_left_whole():
    assert split_name("birdslinear", ["birds"]) == ("", "birdslinear")
    assert split_name("cifar10-linear", ["cifar100"]) == ("", "cifar10-linear")
    assert split_name("", ["birds"]) == ("", "")


def test_publications_call_every_linear_probe_on_fresh_views_linear_and_the_rest_by_its_name():
    linear = {name for name in PROTOCOLS if published_name(name) == "linear"}
    assert linear == {"linear-moco", "linear-seed", "linear-bingo"}
    others = {*PROTOCOLS} - linear | {"cifar10-linear", "coco-mask-rcnn", "unknown"}
    assert all(published_name(name) == name for name in others)


def test_protocols_are_known_without_torch():
    code = "import sys, bingo.study.protocols; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
