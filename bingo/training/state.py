"""Training state beside an output: what a killed job needs to go on as if nothing had happened."""

import fcntl
import io
import logging
import os
import pickle
import sys
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

import torch
from torch import nn

from bingo.artifacts.files import atomic
from bingo.errors import BingoError
from bingo.training.distributed import from_first, is_first
from bingo.training.means import RunningMeans

log = logging.getLogger(__name__)

Row = dict[str, float]
_SECONDS_BETWEEN_SAVES = 600.0
"""Within an epoch; that of a large dataset takes longer than a killed job should lose."""


@dataclass
class Position:
    """How far a training has come; the training loop moves it on."""

    rows: list[Row] = field(default_factory=list)
    """What was logged of each whole epoch."""
    step: int = 0
    """Steps done of the epoch after these."""
    means: RunningMeans = field(default_factory=RunningMeans)
    """Of these steps."""

    def __str__(self) -> str:
        return f"epoch {len(self.rows)}" + (f" and {self.step} steps" if self.step else "")


class TrainingState:
    """A file that holds model, optimizer and log of a training on its way, and one with what it held before.

    It names the settings and inputs it belongs to; a state of other settings or inputs is ignored, one that is damaged
    gives way to that before it. Order, views, positives and what networks draw need no place in it: they are functions
    of seed, epoch and step. Of several processes the first one writes and reads, for all: they have the same weights.
    """

    def __init__(self, path: Path, identity: str) -> None:
        """Use the file at ``path`` for the run with this ``identity`` (a digest of settings and inputs)."""
        self.path = path
        self.previous = path.with_name(f"{path.stem}.previous{path.suffix}")
        self.identity = identity
        self._saved = time.monotonic()

    @contextmanager
    def exclusively(self) -> Iterator[None]:
        """Wait until no other process trains into this file; two would mix their states.

        Raises:
            BingoError: the folder cannot be written, or its file system has no locks.
        """
        if not is_first():
            yield
            return
        lock = self.path.with_name(f".{self.path.name}.lock")
        while True:
            with _open_lock(lock) as file:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    log.warning("%s: another process trains into it; waiting for its end", self.path)
                    fcntl.flock(file, fcntl.LOCK_EX)
                except OSError as error:
                    raise BingoError(
                        f"{lock}: this file system has no locks ({error.strerror}); mount it with flock"
                    ) from error
                # The process that was waited for removes its lock, which then excludes nobody else.
                if os.fstat(file.fileno()).st_nlink > 0:
                    yield
                    return

    def save(self, module: nn.Module, optimizer: torch.optim.Optimizer, position: Position) -> None:
        """Write the state at ``position``, and keep the one before it."""
        self._saved = time.monotonic()
        if not is_first():
            return
        state = {
            "identity": self.identity,
            "module": module.state_dict(),
            "optimizer": optimizer.state_dict(),
            "rows": position.rows,
            "step": position.step,
            "means": position.means.state_dict(),
        }
        content = io.BytesIO()
        torch.save(state, content)  # not to the file: on a full disk torch raises what tells nobody so
        with atomic(self.path) as temporary:
            temporary.write_bytes(content.getbuffer())
            with temporary.open("rb") as file:
                os.fsync(file.fileno())  # now, so that the moment without a newest state is short
            if self.path.exists():
                self.path.replace(self.previous)

    def save_if_due(
        self, module: nn.Module, optimizer: torch.optim.Optimizer, position: Position, asked_to_end: bool
    ) -> None:
        """Save after an epoch, after some minutes of one, and when the process is asked to end.

        Raises:
            BingoError: it is asked to end.
        """
        if position.step == 0 or asked_to_end or time.monotonic() - self._saved >= _SECONDS_BETWEEN_SAVES:
            if position.means.first_bad_step() is not None:
                return  # it has diverged, as will soon be said; the state before that is kept
            self.save(module, optimizer, position)
        if asked_to_end and not is_first():
            sys.exit(1)  # the first one says why
        if asked_to_end:
            raise BingoError(f"asked to end; {self.path} holds the state after {position}; run again to go on from it")

    def restore(self, module: nn.Module, optimizer: torch.optim.Optimizer, device: torch.device) -> Position:
        """Load the state, if there is one of this identity, and return where it stands, which is else the start."""
        state = from_first(lambda: self._read(module))
        if state is None:
            return Position()
        module.load_state_dict(state["module"])
        optimizer.load_state_dict(state["optimizer"])
        position = Position(state["rows"], state["step"])
        position.means.load_state_dict(state["means"], device)
        log.info("resumed after %s", position)
        return position

    def discard(self) -> None:
        """Remove the files: the result is written."""
        if is_first():
            for path in (self.path, self.previous, self.path.with_name(f".{self.path.name}.lock")):
                path.unlink(missing_ok=True)

    def _read(self, module: nn.Module) -> dict[str, Any] | None:
        """Return the newest state that is whole and of this training."""
        for path in (self.path, self.previous):
            former = path == self.path and self.previous.exists()
            instead = "the state before it is looked at" if former else "training starts anew"
            try:
                _require_whole(path)
                state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
                if state["identity"] != self.identity:
                    log.warning("%s: of other settings or inputs, so %s", path, instead)
                    continue
                _require_shapes(state["module"], module)
            except FileNotFoundError:
                continue
            except _DAMAGED as error:
                log.warning("%s: damaged, so %s (%s)", path, instead, " ".join(str(error).split()))
                path.unlink(missing_ok=True)  # or the next save would put it in the place of the one before
                continue
            return state
        return None


_DAMAGED = (
    RuntimeError,
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
    EOFError,
    OSError,
    pickle.UnpicklingError,
    zipfile.BadZipFile,
)


def _require_shapes(state: dict[str, torch.Tensor], module: nn.Module) -> None:
    own = {name: tensor.shape for name, tensor in module.state_dict().items()}
    if {name: tensor.shape for name, tensor in state.items()} != own:
        raise ValueError("its weights are not those of this network")


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
