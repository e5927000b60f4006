"""Training state beside an output: what a killed job needs to go on as if nothing had happened."""

import fcntl
import io
import logging
import os
import pickle
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

import torch
from torch import nn

from bingo.artifacts import atomic
from bingo.errors import BingoError

log = logging.getLogger(__name__)

Row = dict[str, float]


class TrainingState:
    """A file that holds model, optimizer and log after the last whole epoch.

    It names the settings and inputs it belongs to; a state of other settings or inputs is ignored. Order, views and
    positives need no place in it: they are functions of seed and epoch.
    """

    def __init__(self, path: Path, identity: str) -> None:
        """Use the file at ``path`` for the run with this ``identity`` (a digest of settings and inputs)."""
        self.path = path
        self.identity = identity

    @contextmanager
    def exclusively(self) -> Iterator[None]:
        """Wait until no other process trains into this file; two would mix their states.

        Raises:
            BingoError: the folder cannot be written.
        """
        lock = self.path.with_name(f".{self.path.name}.lock")
        while True:
            with _open_lock(lock) as file:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    log.warning("%s: another process trains into it; waiting for its end", self.path)
                    fcntl.flock(file, fcntl.LOCK_EX)
                # The process that was waited for removes its lock, which then excludes nobody else.
                if os.fstat(file.fileno()).st_nlink > 0:
                    yield
                    return

    def save(self, module: nn.Module, optimizer: torch.optim.Optimizer, rows: list[Row]) -> None:
        """Replace the state by that after ``len(rows)`` epochs."""
        state = {
            "identity": self.identity,
            "module": module.state_dict(),
            "optimizer": optimizer.state_dict(),
            "rows": rows,
        }
        content = io.BytesIO()
        torch.save(state, content)  # not to the file: on a full disk torch raises what tells nobody so
        with atomic(self.path) as temporary:
            temporary.write_bytes(content.getbuffer())

    def restore(self, module: nn.Module, optimizer: torch.optim.Optimizer) -> list[Row]:
        """Load the state, if there is one of this identity; return the log rows of its epochs (else none)."""
        try:
            _require_whole(self.path)
            state: dict[str, Any] = torch.load(self.path, map_location="cpu", weights_only=True)
        except FileNotFoundError:
            return []
        except (RuntimeError, ValueError, EOFError, OSError, pickle.UnpicklingError, zipfile.BadZipFile) as error:
            log.warning("%s: damaged, so training starts anew (%s)", self.path, " ".join(str(error).split()))
            return []
        if state.get("identity") != self.identity:
            log.warning("%s: of other settings or inputs, so training starts anew", self.path)
            return []
        module.load_state_dict(state["module"])
        optimizer.load_state_dict(state["optimizer"])
        rows: list[Row] = state["rows"]
        log.info("resumed after epoch %d", len(rows))
        return rows

    def discard(self) -> None:
        """Remove the file: the result is written."""
        self.path.unlink(missing_ok=True)
        self.path.with_name(f".{self.path.name}.lock").unlink(missing_ok=True)


def _open_lock(path: Path) -> TextIO:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.open("w")
    except OSError as error:
        raise BingoError(f"{path.parent}: cannot be written ({error.strerror}); check space and rights") from error


def _require_whole(path: Path) -> None:
    """Check the checksums of the zip archive that torch writes, which torch itself ignores when it reads."""
    with zipfile.ZipFile(path) as archive:
        if (name := archive.testzip()) is not None:
            raise zipfile.BadZipFile(f"{name} does not match its checksum")
