import json

import pytest
import torch
from typer.testing import CliRunner

from bingo import invocation
from bingo.artifacts.provenance import digest_json
from bingo.errors import BingoError
from bingo.report.accuracy import draw_accuracy
from bingo.report.bag_size import draw_bag_size
from bingo.cli.figures import app
from bingo.report.feature_map import draw_map
from bingo.report.neighbours import draw_purity, draw_similarity
from bingo.report.training import draw_training
from bingo.study.jobs import AccuracyFigureJob, BagSizeFigureJob, MapFigureJob, TrainingFigureJob

TABLE = """\
method,student,teacher,bags,protocol,metric,mean,std,seeds,published,source
moco,alone,,,knn-10,top1,50,,1,,
"""
RESULT = {"model": "s", "protocol": "knn-10", "seed": 0, "metrics": {"top1": 50.0}}


@pytest.fixture(autouse=True)
def one_process(monkeypatch):
    """A command sets up the log and the threads of its whole process."""
    monkeypatch.setattr(invocation.logging, "basicConfig", lambda **_: None)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


@pytest.fixture
def cases(study, tmp_path):
    """Of each command, its arguments and what draws the same figure."""
    (tmp_path / "table.csv").write_text(TABLE)
    (tmp_path / "result.json").write_text(json.dumps({**RESULT, "digest": digest_json(RESULT)}))
    (tmp_path / "log.csv").write_text("epoch,loss\n1,3\n2,1\n")
    table, result, log = (tmp_path / name for name in ("table.csv", "result.json", "log.csv"))
    accuracy = AccuracyFigureJob(version=2, architectures={"alone": "resnet18"})
    bag_size = BagSizeFigureJob(version=2, series=[{"label": "bingo", "sizes": {"s": 5}}], evaluations=["knn-10"])
    training = TrainingFigureJob(version=2, panels={"s": "bingo"})
    features = MapFigureJob(version=2, preprocessing=study.preprocessing, model="bingo")

    def settings(job):
        return ["--settings", job.model_dump_json()]

    listing = ["--listing", study.listing]
    return {
        "accuracy": ([*settings(accuracy), "--table", table], lambda out: draw_accuracy(accuracy, table, out)),
        "bag-size": ([*settings(bag_size), result], lambda out: draw_bag_size(bag_size, [result], out)),
        "training": (
            [*settings(training), f"s/seed-0={log}"],
            lambda out: draw_training(training, {"s/seed-0": log}, out),
        ),
        "purity": (
            [*listing, "--embeddings", study.embeddings, "--teacher", study.teacher],
            lambda out: draw_purity(study.listing, study.embeddings, study.teacher, out),
        ),
        "similarity": ([*listing, "--bags", study.bags], lambda out: draw_similarity(study.listing, study.bags, out)),
        "map": (
            [*settings(features), *listing, "--split", "train", "--model", study.teacher],
            lambda out: draw_map(features, study.listing, "train", study.teacher, out, torch.device("cpu"), 0),
        ),
    }


def run(*arguments):
    return CliRunner().invoke(app, list(map(str, arguments)), catch_exceptions=False)


@pytest.mark.parametrize("name", ["accuracy", "bag-size", "training", "purity", "similarity", "map"])
def test_a_command_draws_what_its_stage_draws(name, cases, tmp_path, monkeypatch):
    monkeypatch.setattr("bingo.training.device.pick_device", lambda: torch.device("cpu"))
    arguments, draw = cases[name]
    expected = [tmp_path / "expected.svg", tmp_path / "expected.png"]
    draw(expected)
    outputs = [tmp_path / "x.svg", tmp_path / "x.png"]
    result = run(name, *arguments, "--output", outputs[0], "--output", outputs[1], "--log", tmp_path / "log")
    assert result.exit_code == 0
    assert [path.read_bytes() for path in outputs] == [path.read_bytes() for path in expected]


@pytest.mark.parametrize("logs", [["log.csv"], ["s=log.csv", "s=other.csv"]])
def test_logs_need_names_of_their_own(logs, cases, tmp_path):
    arguments, _ = cases["training"]
    with pytest.raises(BingoError, match=r"^figure training: each log is NAME=CSV"):
        run("training", *arguments[:2], *logs, "--output", tmp_path / "x.svg")


def test_settings_of_another_figure_are_refused(cases, tmp_path):
    arguments, _ = cases["accuracy"]
    with pytest.raises(BingoError, match=r"^--settings: "):
        run("training", *arguments[:2], "s=log.csv", "--output", tmp_path / "x.svg")
