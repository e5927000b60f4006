import os
import shutil
from collections import namedtuple

import pytest
import torch
import yaml

from bingo.cli.doctor.study import embeddings_bytes, study
from bingo.study.plan import Plan
from bingo.study.schema import parse_study

Usage = namedtuple("Usage", "total used free")


@pytest.fixture
def write(tmp_path):
    """Write a study on a folder of ten images in two classes, with the given keys of `data`."""
    for number in range(10):
        path = tmp_path / "photos" / "ab"[number % 2] / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")

    def written(backbone="resnet50", width=1.0, **data):
        teacher = {"method": "moco", "backbone": {"architecture": backbone, "width": width}}
        raw = {
            "study": "s",
            "data": {"source": "folder", "train": str(tmp_path / "photos"), **data},
            "teachers": {"t": {**teacher, "training": {"batch_size": 2}}},
            "bags": {"knn": {"criterion": "knn", "teacher": "t", "size": 2}},
            "evaluations": ["knn-10"],
        }
        path = tmp_path / "s.yaml"
        path.write_text(yaml.safe_dump(raw))
        return path

    return written


def found(path):
    return [(finding.status, finding.what.removeprefix(f"{path}: ")) for finding in study(path)]


def test_a_study_that_fits_is_fine(write):
    assert [status for status, _ in found(write(held_out=0.2))] == ["ok", "ok"]


@pytest.mark.parametrize(
    ("data", "status", "named"),
    [
        ({"train": "nowhere"}, "fail", "data.train: "),
        ({"trian": "nowhere"}, "fail", "data: unknown key 'trian'"),
        ({}, "note", "left out: "),
        ({"workers": 10_000}, "note", f"data.workers is 10000, but there are {len(os.sched_getaffinity(0))} "),
        ({"preprocessing": {"decoder": "nvjpeg"}}, "fail", "data.preprocessing.decoder: "),
    ],
)
def test_what_does_not_fit_is_found(write, monkeypatch, data, status, named):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert [said for said, what in found(write(**data)) if what.startswith(named)] == [status]


def test_a_study_file_that_is_missing_or_no_yaml_fails(tmp_path):
    path = tmp_path / "s.yaml"
    for content in (None, "study: ["):
        if content:
            path.write_text(content)
        ((status, what),) = found(path)
        assert (status, "\n" in what) == ("fail", False)


def test_embeddings_larger_than_the_free_disk_fail(write, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10**6, 0, 10**4))
    assert found(write())[-1][0] == "fail"


@pytest.mark.parametrize(
    ("backbone", "width", "limit", "expected"),
    [
        ("resnet50", 1.0, None, 10 * 2048 * 2),
        ("resnet18", 0.5, None, 10 * 256 * 2),
        ("resnet50", 2.0, 4, 4 * 4096 * 2),
        ("mobilenet_v3_large", 1.0, None, None),
    ],
)
def test_embeddings_take_two_bytes_for_each_feature_of_each_image(write, backbone, width, limit, expected):
    parsed = parse_study(yaml.safe_load(write(backbone, width, max_train=limit).read_text()), "s")
    assert embeddings_bytes(parsed, Plan(parsed)) == expected
