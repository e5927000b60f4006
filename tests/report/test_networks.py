"""The rows of an accuracy figure."""

import itertools

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bingo.report.networks import FigureRow, match_published_protocols, split_blocks, table_groups
from bingo.report.table import read_table

HEADER = "method,student,teacher,bags,protocol,metric,mean,std,seeds,published,source\n"


@pytest.mark.parametrize(
    ("ours", "panels"),
    [(["linear-moco", "knn-10"], ["linear-moco"]), (["linear-moco", "linear-bingo"], ["linear-moco", "linear-bingo"])],
)
def test_a_published_linear_accuracy_stands_in_each_panel_of_a_linear_probe(ours, panels):
    frame = pd.DataFrame({"student": ["a"] * len(ours) + ["resnet18"], "protocol": [*ours, "linear"]})
    moved = match_published_protocols(frame)
    assert list(moved.loc[moved["student"] == "resnet18", "protocol"]) == panels
    assert list(moved.loc[moved["student"] == "a", "protocol"]) == ours


def test_a_published_number_without_a_panel_of_ours_keeps_its_own():
    frame = pd.DataFrame({"student": ["a", "resnet18", "resnet18"], "protocol": ["knn-10", "linear", "knn-10"]})
    pd.testing.assert_frame_equal(match_published_protocols(frame), frame, check_dtype=False)


@pytest.mark.parametrize(
    ("student", "teacher", "label"),
    [
        ("distilled", "r50", "distilled (bingo), from r50"),
        ("bingo-r50-small", "r50", "bingo-r50-small (bingo)"),
        ("bingo-r50x2", "r50", "bingo-r50x2 (bingo), from r50"),
        ("bingo", "r50", "bingo, from r50"),
        ("resnet18", "r50", "bingo, from r50"),
        ("distilled", "", "distilled (bingo)"),
    ],
)
def test_if_there_are_several_teachers_a_line_names_its_own_once(student, teacher, label, tmp_path):
    path = tmp_path / "table.csv"
    rows = [("bingo", student, teacher), ("seed", "other", "r50"), ("seed", "another", "r152")]
    path.write_text(HEADER + "".join(f"{','.join(row)},,knn-10,top1,50,,1,,\n" for row in rows))
    groups = table_groups(read_table(path), {name: "resnet18" for _, name, _ in rows})
    assert [line.text for group in groups for line in group if line.method == "bingo"] == [label]


@given(sizes=st.lists(st.integers(1, 30), max_size=12), limit=st.integers(1, 40))
def test_blocks_keep_every_line_in_order_and_groups_whole(sizes, limit):
    groups = [[FigureRow(f"{number}-{i}") for i in range(size)] for number, size in enumerate(sizes)]
    blocks = split_blocks(groups, limit)
    assert [line for block in blocks for line in block] == [line for group in groups for line in group]
    for block in blocks:
        members = {line.text.partition("-")[0] for line in block}
        assert len(block) == sum(sizes[int(number)] for number in members)
        assert len(block) <= limit or len(members) == 1
    assert all(len(a) + sizes[int(b[0].text.partition("-")[0])] > limit for a, b in itertools.pairwise(blocks))
