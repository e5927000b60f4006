"""The training state, from which an interrupted training resumes with a bitwise identical result."""

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

from bingo.artifacts.files import atomic_write
from bingo.errors import BingoError
from bingo.training.distributed import broadcast_from_first, is_first
from bingo.training.means import RunningMeans

log = logging.getLogger(__name__)

LogRow = dict[str, float]
_SECONDS_BETWEEN_SAVES = 600.0
"""Interval of saves within an epoch, for datasets with long epochs."""


@dataclass
class TrainingPosition:
    """Progress of a training."""

    rows: list[LogRow] = field(default_factory=list)
    """Logged values of each finished epoch."""
    step: int = 0
    """Number of finished steps in the current epoch."""
    means: RunningMeans = field(default_factory=RunningMeans)
    """Means over these steps."""

    @property
    def epoch(self) -> int:
        """Number of finished epochs; the current epoch, counted from 0."""
        return len(self.rows)

    def __str__(self) -> str:
        return f"epoch {self.epoch}" + (f" and {self.step} steps" if self.step else "")


class TrainingState:
    """Saves model, optimizer and log of an unfinished training, and keeps the previous state in a second file.

    A state with other settings or inputs is ignored. If the newest state is damaged, the previous one is used. Random
    state is not saved, because all random numbers are functions of seed, epoch and step. Rank 0 reads and writes for
    all processes, which have the same weights.
    """

    def __init__(self, path: Path, identity: str) -> None:
        """Use the file ``path`` for the run ``identity``, a digest of settings and inputs."""
        self.path = path
        self.previous = path.with_name(f"{path.stem}.previous{path.suffix}")
        self.identity = identity
        self._saved = time.monotonic()

    @contextmanager
    def exclusively(self) -> Iterator[None]:
        """Lock the file for this training; wait while another training holds the lock.

        Raises:
            BingoError: the folder cannot be written, or its file system does not support locks.
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
                    log.warning("%s: in use by another training; waiting until it ends", self.path)
                    fcntl.flock(file, fcntl.LOCK_EX)
                except OSError as error:
                    raise BingoError(
                        f"{lock}: the file system does not support locks ({error.strerror}); mount it with flock"
                    ) from error
                # The previous holder deletes the lock file when it ends. Then this lock is void: lock the new file.
                if os.fstat(file.fileno()).st_nlink > 0:
                    yield
                    return

    def save(self, module: nn.Module, optimizer: torch.optim.Optimizer, position: TrainingPosition) -> None:
        """Save the state at ``position``, and keep the previous state."""
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
        torch.save(state, content)  # to memory, because torch's error for a full disk is unclear
        with atomic_write(self.path) as temporary:
            temporary.write_bytes(content.getbuffer())
            with temporary.open("rb") as file:
                os.fsync(file.fileno())  # before the rename below, to keep the time without a current state short
            if self.path.exists():
                self.path.replace(self.previous)

    def save_if_due(
        self, module: nn.Module, optimizer: torch.optim.Optimizer, position: TrainingPosition, asked_to_end: bool
    ) -> None:
        """Save after each epoch, every ten minutes within an epoch, and when a signal asked the process to end.

        Raises:
            BingoError: a signal asked the process to end.
        """
        if position.step == 0 or asked_to_end or time.monotonic() - self._saved >= _SECONDS_BETWEEN_SAVES:
            if position.means.first_bad_step() is not None:
                return  # keep the last finite state; the loop reports the error soon
            self.save(module, optimizer, position)
        if asked_to_end and not is_first():
            sys.exit(1)  # rank 0 prints the message
        if asked_to_end:
            raise BingoError(f"asked to end; {self.path} holds the state after {position}; run again to resume")

    def restore(self, module: nn.Module, optimizer: torch.optim.Optimizer, device: torch.device) -> TrainingPosition:
        """Load the saved state of this identity, if any, and return its position; otherwise the start."""
        state = broadcast_from_first(lambda: self._read(module))
        if state is None:
            return TrainingPosition()
        module.load_state_dict(state["module"])
        optimizer.load_state_dict(state["optimizer"])
        position = TrainingPosition(state["rows"], state["step"])
        position.means.load_state_dict(state["means"], device)
        log.info("resumed after %s", position)
        return position

    def discard(self) -> None:
        """Delete the files, after the result is written."""
        if is_first():
            for path in (self.path, self.previous, self.path.with_name(f".{self.path.name}.lock")):
                path.unlink(missing_ok=True)

    def _read(self, module: nn.Module) -> dict[str, Any] | None:
        """Return the newest valid state of this identity, or None."""
        for path in (self.path, self.previous):
            fallback = path == self.path and self.previous.exists()
            next_action = "trying the previous state" if fallback else "training starts from the beginning"
            try:
                _require_intact(path)
                state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
                if state["identity"] != self.identity:
                    log.warning("%s: belongs to other settings or inputs; %s", path, next_action)
                    continue
                _require_shapes(state["module"], module)
            except FileNotFoundError:
                continue
            except _DAMAGED as error:
                log.warning("%s: is damaged (%s); %s", path, " ".join(str(error).split()), next_action)
                path.unlink(missing_ok=True)  # otherwise the next save would make it the previous state
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
    expected = {name: tensor.shape for name, tensor in module.state_dict().items()}
    if {name: tensor.shape for name, tensor in state.items()} != expected:
        raise ValueError("the weights do not fit this network")


def _open_lock(path: Path) -> TextIO:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.open("w")
    except OSError as error:
        raise BingoError(f"{path.parent}: cannot be written ({error.strerror}); check space and permissions") from error


def _require_intact(path: Path) -> None:
    """Verify the checksums of torch's zip archive, which `torch.load` does not check."""
    with zipfile.ZipFile(path) as archive:
        if (name := archive.testzip()) is not None:
            raise zipfile.BadZipFile(f"{name} does not match its checksum")
