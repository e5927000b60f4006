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

BIRDS = Path("birds.yaml")


@pytest.fixture
def photos(tmp_path, monkeypatch):
    """A folder of forty photographs in two classes, one of which cannot be read; its parent is the working folder."""
    generator = np.random.default_rng(0)
    for i in range(40):
        path = tmp_path / "photos" / ("ant", "bee")[i % 2] / f"{i}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(generator.integers(0, 256, (40, 60, 3), dtype=np.uint8)).save(path)
    (tmp_path / "photos/bee/3.jpg").write_text("no image")
    monkeypatch.chdir(tmp_path)
    return Path("photos")


def written():
    return parse_study(yaml.safe_load(BIRDS.read_text()), "birds.yaml")


@pytest.mark.parametrize("cuda", [True, False])
def test_the_file_is_written_for_the_machine_and_the_next_commands_are_shown(photos, cuda, monkeypatch):
    monkeypatch.setattr(new, "this_machine", lambda: Machine(cuda, cores=2))
    lines = "\n".join(write_study("birds", photos, BIRDS, None, None))
    assert set(written().teachers) == {"resnet50" if cuda else "resnet10-w16"}
    assert Plan(written()).left_out == ""
    for part in ("photos/bee/3.jpg", "--configfile birds.yaml", "bingo summary results/birds"):
        assert part in lines


def test_a_file_that_exists_is_left_as_it_is(photos):
    BIRDS.write_text("mine")
    with pytest.raises(BingoError, match=r"^birds\.yaml: "):
        write_study("birds", photos, BIRDS, None, None)
    assert BIRDS.read_text() == "mine"


def test_a_checkpoint_that_is_none_is_refused_before_anything_is_written(photos):
    Path("x.pt").write_text("no checkpoint")
    with pytest.raises(BingoError, match=r"x\.pt"):
        write_study("birds", photos, BIRDS, None, Path("x.pt"))
    assert not BIRDS.exists()


def test_if_too_few_would_validate_none_are_held_out(photos):
    for path in list(photos.rglob("*.jpg"))[17:]:
        path.unlink()
    write_study("birds", photos, BIRDS, None, None)
    assert (written().data.held_out, written().evaluations) == (None, [])
