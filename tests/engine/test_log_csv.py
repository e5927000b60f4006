import csv

from bingo.engine.log_csv import write_log


def test_a_line_per_epoch_in_the_order_of_the_values(tmp_path):
    rows = [
        {"epoch": 1, "lr": 0.03, "loss": 9.12345678, "intra": 4.0},
        {"epoch": 2, "lr": 0.015, "loss": 1e-7, "intra": 3.5},
    ]
    path = tmp_path / "folder" / "log.csv"
    write_log(path, rows)
    with path.open(newline="") as file:
        lines = list(csv.reader(file))
    assert lines == [
        ["epoch", "lr", "loss", "intra"],
        ["1", "0.03", "9.12346", "4"],
        ["2", "0.015", "1e-07", "3.5"],
    ]
