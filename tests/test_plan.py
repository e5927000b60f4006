import os

import pytest

from bingo.config import parse_study
from bingo.errors import BingoError
from bingo.plan import Plan

STUDY = {
    "study": "s",
    "data": {"source": "demo", "max_train": 100},
    "teachers": {"big": {"method": "moco", "backbone": {"architecture": "resnet18"}, "training": {"batch_size": 100}}},
    "bags": {"knn": {"criterion": "knn", "teacher": "big", "size": 99}},
    "students": {
        "small": {
            "method": "bingo",
            "bags": "knn",
            "backbone": {"architecture": "resnet10"},
            "training": {"batch_size": 100},
        }
    },
}


def plan(images):
    return Plan(parse_study({**STUDY, "data": {"source": "demo", "max_train": images}}, "s.yaml"))


@pytest.mark.parametrize("section", ["bags.knn", "teachers.big", "students.small"])
def test_more_images_than_there_are_is_refused_before_anything_runs(section):
    assert plan(100).facts.most_images == 100
    keys = ["bags.knn.size", "teachers.big.training.batch_size", "students.small.training.batch_size"]
    raw = {**STUDY, "data": {"source": "demo", "max_train": 60}}
    for key in keys:
        if not key.startswith(section):
            name, entry = key.split(".")[:2]
            change = {"size": 5} if name == "bags" else {"training": {"batch_size": 60}}
            raw = {**raw, name: {entry: {**raw[name][entry], **change}}}
    with pytest.raises(BingoError, match=rf"{section}[a-z._]*size: \d+ needs 100 training images, but there are 60"):
        Plan(parse_study(raw, "s.yaml"))


def test_errors_are_read_from_the_logs_of_this_run_alone(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    lines = {
        "old": "1999-12-31 23:59:59 error: long ago",
        "new": "2026-01-01 00:00:00 error: x.h5: damaged",
        "ok": "fine",
    }
    for age, (name, line) in enumerate(lines.items()):
        path = tmp_path / "logs" / "s" / "bags" / f"{name}.log"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"2026-01-01 00:00:00 knn: 7 of 9 images\n{line}\n")
        if age == 0:
            os.utime(path, (1000, 1000))
    assert plan(100).faults(since=2000) == ["logs/s/bags/new.log: x.h5: damaged"]
    assert len(plan(100).faults(since=0)) == 2
