import csv

from bingo.training.log_csv import write_log


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


def test_a_value_that_some_epochs_do_not_have_leaves_its_cells_empty(tmp_path):
    rows = [{"epoch": 1, "lr": 0.03, "loss": 2.0}, {"epoch": 2, "lr": 0.02, "loss": 1.0, "inter": 0.5}]
    write_log(tmp_path / "log.csv", rows)
    assert (tmp_path / "log.csv").read_text().splitlines() == ["epoch,lr,loss,inter", "1,0.03,2,", "2,0.02,1,0.5"]
