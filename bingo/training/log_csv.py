"""The per-epoch log of a training run."""

from pathlib import Path

import pandas as pd

from bingo.artifacts.files import atomic_write_checked
from bingo.training.state import LogRow


def write_log(path: Path, rows: list[LogRow]) -> None:
    """Write one line per epoch: epoch, learning rate, and the mean of each logged value."""
    frame = pd.DataFrame(rows).astype({"epoch": int})
    with atomic_write_checked(path) as temporary:
        frame.to_csv(temporary, index=False, float_format="%.6g")
