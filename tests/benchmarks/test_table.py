"""The tables that benchmarks are written to."""

import pandas as pd

from benchmarks.__main__ import write_table
from benchmarks.measure import BenchmarkRow

COLUMNS = "benchmark,ours,reference,ratio,ceiling,fraction_of_ceiling,unit,device,ratio_low,ratio_high,repeats,goal"


def test_a_table_has_its_columns_in_order_and_empty_cells_where_nothing_was_measured(tmp_path):
    write_table(tmp_path / "folder/table", [BenchmarkRow("bags", "s", "cpu", "<= 1", 2.0, 4.0, 0.5, repeats=3)], "make")
    lines = (tmp_path / "folder/table.csv").read_text().splitlines()
    assert lines == [COLUMNS, "bags,2.0,4.0,0.5,,,s,cpu,,,3,<= 1"]
    text = (tmp_path / "folder/table.md").read_text()
    assert text.startswith("`make`, 20")
    assert "torch" in text
    assert [cell.strip() for cell in text.splitlines()[-1].split("|")[1:6]] == ["bags", "2", "4", "0.5", ""]


def test_a_benchmark_that_is_run_again_replaces_its_rows_alone(tmp_path):
    write_table(
        tmp_path / "table",
        [BenchmarkRow("a", "s", "cpu", ours=1.0), BenchmarkRow("b", "MiB", "cpu"), BenchmarkRow("c", "s", "cpu")],
        "",
    )
    write_table(tmp_path / "table", [BenchmarkRow("d", "s", "cpu"), BenchmarkRow("b", "MiB", "cpu", ours=3.0)], "")
    found = pd.read_csv(tmp_path / "table.csv")
    assert found["benchmark"].tolist() == ["a", "b", "c", "d"]
    assert found["ours"].dropna().tolist() == [1.0, 3.0]


def test_a_table_with_several_rows_of_a_name_keeps_their_order(tmp_path):
    for ours in (1.0, 2.0):
        write_table(tmp_path / "table", [BenchmarkRow("n", "s", "cpu", ours=ours + number) for number in range(3)], "")
        write_table(tmp_path / "table", [BenchmarkRow("m", "s", "cpu", ours=0.0)], "")
    found = pd.read_csv(tmp_path / "table.csv")
    assert found["benchmark"].tolist() == ["n", "n", "n", "m"]
    assert found["ours"].tolist() == [2.0, 3.0, 4.0, 0.0]
