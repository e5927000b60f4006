"""`bingo new`: a study file is written for a folder, and nothing is overwritten."""

from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from bingo.cli import new
from bingo.cli.new import write_study
from bingo.errors import BingoError
from bingo.study.new import Machine
from bingo.study.plan import Plan
from bingo.study.schema import parse_study


@pytest.fixture
def photos(tmp_path, monkeypatch):
    """A folder of forty photographs in two classes, one of which cannot be read; it is the working directory."""
    generator = np.random.default_rng(0)
    for i in range(40):
        path = tmp_path / "photos" / ("ant", "bee")[i % 2] / f"{i}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(generator.integers(0, 256, (200, 300, 3), dtype=np.uint8)).save(path)
    (tmp_path / "photos/bee/3.jpg").write_text("no image")
    monkeypatch.chdir(tmp_path)
    return Path("photos")


@pytest.mark.parametrize("cuda", [True, False])
def test_the_file_is_written_for_the_machine_and_what_comes_next_is_told(photos, cuda, monkeypatch):
    monkeypatch.setattr(new, "this_machine", lambda: Machine(cuda, cores=2))
    said = "\n".join(write_study("birds", photos, Path("birds.yaml"), None, None))
    study = parse_study(yaml.safe_load(Path("birds.yaml").read_text()), "birds.yaml")
    assert set(study.teachers) == {"resnet50" if cuda else "resnet10-w16"}
    plan = Plan(study)
    assert plan.left_out == ""
    assert plan.path("report.html") == "results/birds/report.html"
    assert "cannot be read: photos/bee/3.jpg" in said
    assert "snakemake --cores all --configfile birds.yaml" in said
    assert "bingo summary results/birds" in said


def test_a_file_that_exists_is_left_as_it_is(photos):
    Path("birds.yaml").write_text("mine")
    with pytest.raises(BingoError, match=r"^birds\.yaml: exists already"):
        write_study("birds", photos, Path("birds.yaml"), None, None)
    assert Path("birds.yaml").read_text() == "mine"


def test_a_teacher_that_is_none_is_refused_before_anything_is_written(photos):
    Path("x.pt").write_text("no checkpoint")
    with pytest.raises(BingoError, match=r"x\.pt"):
        write_study("birds", photos, Path("birds.yaml"), None, Path("x.pt"))
    assert not Path("birds.yaml").exists()


def test_where_too_few_would_validate_none_are_held_out(photos):
    for path in list(photos.rglob("*.jpg"))[17:]:
        path.unlink()
    write_study("birds", photos, Path("birds.yaml"), None, None)
    study = parse_study(yaml.safe_load(Path("birds.yaml").read_text()), "birds.yaml")
    assert (study.data.held_out, study.evaluations) == (None, [])
