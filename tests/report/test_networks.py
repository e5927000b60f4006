import pandas as pd
import pytest

from bingo.report.networks import match_published_protocols


@pytest.mark.parametrize(
    ("ours", "panels"),
    [(["linear-moco", "knn-10"], ["linear-moco"]), (["linear-moco", "linear-bingo"], ["linear-moco", "linear-bingo"])],
)
def test_a_published_linear_accuracy_of_another_network_stands_in_each_panel_of_a_linear_probe(ours, panels):
    frame = pd.DataFrame({"student": ["a"] * len(ours) + ["resnet18"], "protocol": [*ours, "linear"]})
    moved = match_published_protocols(frame)
    assert list(moved.loc[moved["student"] == "resnet18", "protocol"]) == panels
    assert list(moved.loc[moved["student"] == "a", "protocol"]) == ours


def test_a_published_number_without_a_panel_of_ours_keeps_its_own():
    frame = pd.DataFrame({"student": ["a", "resnet18", "resnet18"], "protocol": ["knn-10", "linear", "knn-10"]})
    pd.testing.assert_frame_equal(match_published_protocols(frame), frame, check_dtype=False)
