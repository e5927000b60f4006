from bingo.training.log_csv import write_log


def test_a_line_per_epoch_with_empty_cells_for_values_that_an_epoch_does_not_have(tmp_path):
    rows = [
        {"epoch": 1, "lr": 0.03, "loss": 9.12345678},
        {"epoch": 2, "lr": 0.015, "loss": 1e-7, "inter": 4.0},
    ]
    path = tmp_path / "folder" / "log.csv"
    write_log(path, rows)
    assert path.read_text().splitlines() == ["epoch,lr,loss,inter", "1,0.03,9.12346,", "2,0.015,1e-07,4"]
