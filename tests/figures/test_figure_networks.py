import pandas as pd
import pytest

from bingo.report.networks import beside_ours


@pytest.mark.parametrize(
    ("ours", "panels"),
    [(["linear-moco", "knn-10"], ["linear-moco"]), (["linear-moco", "linear-bingo"], ["linear-moco", "linear-bingo"])],
)
def test_a_published_linear_accuracy_of_another_network_stands_in_each_panel_of_a_linear_probe(ours, panels):
    frame = pd.DataFrame({"student": ["a"] * len(ours) + ["resnet18"], "protocol": [*ours, "linear"]})
    moved = beside_ours(frame)
    assert list(moved.loc[moved["student"] == "resnet18", "protocol"]) == panels
    assert list(moved.loc[moved["student"] == "a", "protocol"]) == ours


def test_a_published_number_without_a_panel_of_ours_keeps_its_own():
    frame = pd.DataFrame({"student": ["a", "resnet18", "resnet18"], "protocol": ["knn-10", "linear", "knn-10"]})
    pd.testing.assert_frame_equal(beside_ours(frame), frame, check_dtype=False)
