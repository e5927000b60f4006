import numpy as np
import pytest

from bingo.bags.bags import read_bags
from bingo.errors import BingoError
from bingo.report.sheet import choose_anchors
from bingo.stages import sheets
from bingo.study.report_jobs import SheetsJob
from tests.stage import run_stage


@pytest.fixture
def draw(demo, bags_of, teacher):
    def draw(pages, listing=demo.path):
        run_stage(SheetsJob, listing=listing, bags=bags_of(teacher), pages=pages)

    return draw


def test_every_page_shows_the_anchors_of_its_name(draw, demo, bags_of, teacher, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(sheets, "draw_sheet", lambda *arguments: seen.append(arguments[2:]))
    for page in ("random", "more", "best", "worst"):
        draw({page: tmp_path / "sheet.png"})
        anchors, output = seen.pop()
        np.testing.assert_array_equal(anchors, choose_anchors(read_bags(bags_of(teacher)), demo.listing.label, page))
        assert output == tmp_path / "sheet.png"


def test_bags_of_another_dataset_are_refused(draw, list_demo, bags_of, teacher, tmp_path):
    with pytest.raises(BingoError, match=f"^{bags_of(teacher)}: .*dataset"):
        draw({"random": tmp_path / "sheet.png"}, list_demo(39).path)
    assert not list(tmp_path.iterdir())
