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
    **dict.fromkeys(("jitter", "brightness", "contrast", "saturation", "hue", "grayscale", "blur"), 0.0),
    "blur_sigma": (0.1, 2.0),
    "interpolation": "bilinear",
}


def knn(k, temperature=None, interpolation="bilinear"):
    return {"kind": "Knn", "k": k, "temperature": temperature, "interpolation": interpolation}


def steps(factor, *milestones):
    return {"milestones": list(milestones), "factor": factor}


def semi(labels, backbone_lr=0.01, head_lr=0.2):
    rates = {"backbone_lr": backbone_lr, "head_lr": head_lr, "schedule": steps(0.2, 12, 16)}
    return {"kind": "Finetune", "labels": labels, "epochs": 20, "batch_size": 256, **rates}


def detection(masks, **changes):
    rates = {"lr": 0.02, "weight_decay": 1e-4, "schedule": steps(0.1, 8, 11), "warmup_steps": 1000}
    sizes = {"shorter_side": 800, "longer_side": 1333, "anchors": (32, 64, 128, 256, 512)}
    return {"kind": "Detection", "masks": masks, "epochs": 12, "batch_size": 16, **rates, **sizes, **changes}


SMALL = {"batch_size": 8, "warmup_steps": 20, "shorter_side": 128, "longer_side": 256, "anchors": (8, 16, 32, 64, 128)}
MOCO = {
    "kind": "Linear",
    "epochs": 100,
    "batch_size": 256,
    "lr": 30.0,
    "weight_decay": 0.0,
    "schedule": steps(0.1, 60, 80),
    "final_lr": 0.0,
    "efficientnet_lr": None,
    "views": CROP_FLIP,
    "standardise": False,
    "interpolation": "bilinear",
    "whole": False,
}
BICUBIC = {"views": CROP_FLIP | {"interpolation": "bicubic"}, "interpolation": "bicubic", "whole": True}

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
    "semi-1": semi(0.01, 0.02, 5.0),
    "semi-10": semi(0.1),
}
FROZEN_TRANSFER = {
    "linear": MOCO | {"epochs": 200, "lr": 3.0, "schedule": None} | BICUBIC,
    "finetune": semi(1.0),
}
FROZEN_DETECTION = {
    "mask-rcnn": detection(True),
    "faster-rcnn": detection(False),
    "mask-rcnn-small": detection(True, **SMALL),
    "faster-rcnn-small": detection(False, **SMALL),
}


def plain(protocol):
    values = asdict(protocol)
    assert values.pop("source")
    if isinstance(protocol, Linear) and protocol.views is not None:
        values["views"] = asdict(training_views(protocol))
    if isinstance(values.get("schedule"), Steps):
        values["schedule"] = values["schedule"].model_dump()
    return {"kind": type(protocol).__name__, **values}


TABLES = {"own": PROTOCOLS, "transfer": TRANSFER_PROTOCOLS, "detection": DETECTION_PROTOCOLS}


def test_the_hyper_parameters_of_a_name_never_change():
    frozen = {"own": FROZEN, "transfer": FROZEN_TRANSFER, "detection": FROZEN_DETECTION}
    for table, protocols in TABLES.items():
        assert {name: plain(protocol) for name, protocol in protocols.items()} == frozen[table]
    assert len({name for table in TABLES.values() for name in table}) == sum(map(len, TABLES.values()))


@pytest.mark.parametrize("target", ["cifar10", "my-birds_2", "knn", "linear"])
def test_a_name_is_split_into_its_target_and_its_protocol(target):
    for name in (name for table in TABLES.values() for name in table):
        assert split_name(f"{target}-{name}", ["other", target]) == (target, name)
        if name in PROTOCOLS:  # which the study's own images are measured by
            assert split_name(name, ["knn", "linear", "semi", "linear-moco"]) == split_name(name, []) == ("", name)


@pytest.mark.parametrize(
    ("name", "targets", "parts"),
    [
        ("birds-2-linear", ["birds", "birds-2"], ("birds-2", "linear")),
        ("birds-2-linear", ["birds-2", "birds"], ("birds-2", "linear")),
        ("birds-linear", ["birds", "birds-2"], ("birds", "linear")),
        ("birdslinear", ["birds"], ("", "birdslinear")),
        ("cifar10-linear", ["cifar100"], ("", "cifar10-linear")),
    ],
)
def test_the_longest_target_that_begins_a_name_counts(name, targets, parts):
    assert split_name(name, targets) == parts


def test_publications_call_every_linear_probe_on_fresh_views_linear_and_the_rest_by_its_name():
    linear = {name for name in PROTOCOLS if published_name(name) == "linear"}
    assert linear == {"linear-moco", "linear-seed", "linear-bingo"}
    others = {*PROTOCOLS} - linear | {"cifar10-linear", "coco-mask-rcnn", "unknown"}
    assert all(published_name(name) == name for name in others)
