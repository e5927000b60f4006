import json

import pytest
import torch
from typer.testing import CliRunner

from bingo.artifacts.provenance import digest_json
from bingo.cli import logs
from bingo.cli.stage import app
from bingo.errors import BingoError
from bingo.report.accuracy import draw_accuracy
from bingo.report.bag_size import draw_bag_size
from bingo.report.feature_map import draw_map
from bingo.report.neighbours import draw_purity, draw_similarity
from bingo.report.training import draw_training
from bingo.study.report_contents import BagSizeSeries

TABLE = """\
method,student,teacher,bags,protocol,metric,mean,std,seeds,published,source
moco,alone,,,knn-10,top1,50,,1,,
"""
RESULT = {"model": "s", "protocol": "knn-10", "seed": 0, "metrics": {"top1": 50.0}}


@pytest.fixture(autouse=True)
def one_process(monkeypatch):
    """A command sets up the log and the threads of its whole process."""
    monkeypatch.setattr(logs.logging, "basicConfig", lambda **_: None)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


def settings(**fields):
    return ["--settings", json.dumps({"version": 2, **fields})]


@pytest.fixture
def cases(study, tmp_path):
    """Of each stage, its arguments and what draws the same figure."""
    (tmp_path / "table.csv").write_text(TABLE)
    (tmp_path / "result.json").write_text(json.dumps({**RESULT, "digest": digest_json(RESULT)}))
    (tmp_path / "log.csv").write_text("epoch,loss\n1,3\n2,1\n")
    table, result, log = (tmp_path / name for name in ("table.csv", "result.json", "log.csv"))
    series = BagSizeSeries(label="bingo", sizes={"s": 5})
    listing = ["--listing", study.listing]
    return {
        "accuracy_figure": (
            [*settings(architectures={"alone": "resnet18"}), "--table", table],
            lambda out: draw_accuracy({"alone": "resnet18"}, table, out),
        ),
        "bag_size_figure": (
            [*settings(series=[series.model_dump()], evaluations=["knn-10"]), "--results", result],
            lambda out: draw_bag_size([series], ["knn-10"], [result], out),
        ),
        "training_figure": (
            [*settings(panels={"s": "bingo"}), "--logs", f"s/seed-0={log}"],
            lambda out: draw_training({"s": "bingo"}, {"s/seed-0": log}, out),
        ),
        "purity_figure": (
            [*listing, "--embeddings", study.embeddings, "--teacher", study.teacher],
            lambda out: draw_purity(study.listing, study.embeddings, study.teacher, out),
        ),
        "similarity_figure": (
            [*listing, "--bags", study.bags],
            lambda out: draw_similarity(study.listing, study.bags, out),
        ),
        "map_figure": (
            [
                *settings(preprocessing=study.preprocessing.model_dump(), model="bingo"),
                *(*listing, "--split", "train", "--weights", study.teacher),
            ],
            lambda out: draw_map(
                "bingo", study.preprocessing, study.listing, "train", study.teacher, out, torch.device("cpu"), 0
            ),
        ),
    }


def run(*arguments):
    return CliRunner().invoke(app, list(map(str, arguments)), catch_exceptions=False)


@pytest.mark.parametrize(
    "name",
    ["accuracy_figure", "bag_size_figure", "training_figure", "purity_figure", "similarity_figure", "map_figure"],
)
def test_a_command_draws_what_its_stage_draws(name, cases, tmp_path, monkeypatch):
    monkeypatch.setattr("bingo.training.device.pick_device", lambda: torch.device("cpu"))
    arguments, draw = cases[name]
    expected = [tmp_path / "expected.svg", tmp_path / "expected.png"]
    draw(expected)
    outputs = [tmp_path / "x.svg", tmp_path / "x.png"]
    result = run(name, *arguments, "--output", outputs[0], "--output", outputs[1], "--log", tmp_path / "log")
    assert result.exit_code == 0
    assert [path.read_bytes() for path in outputs] == [path.read_bytes() for path in expected]


@pytest.mark.parametrize("given", [["log.csv"], ["s=log.csv", "s=other.csv"]])
def test_logs_need_names_of_their_own(given, cases, tmp_path):
    arguments, _ = cases["training_figure"]
    options = [word for pair in given for word in ("--logs", pair)]
    with pytest.raises(BingoError, match=r"^--logs: "):
        run("training_figure", *arguments[:2], *options, "--output", tmp_path / "x.svg")


def test_settings_of_another_figure_are_refused(cases, tmp_path):
    arguments, _ = cases["accuracy_figure"]
    with pytest.raises(BingoError, match=r"^--settings: "):
        run("training_figure", *arguments[:2], "--logs", "s=log.csv", "--output", tmp_path / "x.svg")
