"""The training state: what an interrupted job needs to resume, and end with the same bytes."""

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
"""Within an epoch: on a large dataset, an epoch takes longer than a killed job should lose."""


@dataclass
class TrainingPosition:
    """How far a training has come."""

    rows: list[LogRow] = field(default_factory=list)
    """One per finished epoch: what was logged."""
    step: int = 0
    """Finished steps of the current epoch."""
    means: RunningMeans = field(default_factory=RunningMeans)
    """Means over these steps."""

    @property
    def epoch(self) -> int:
        """Finished epochs, which is the number of the current one, from 0."""
        return len(self.rows)

    def __str__(self) -> str:
        return f"epoch {self.epoch}" + (f" and {self.step} steps" if self.step else "")


class TrainingState:
    """A file with the model, optimizer and log of an unfinished training, and a second file with the previous state.

    A state of other settings or inputs is ignored. If the newest state is damaged, the previous one is used. The order
    of images, views, positives and what networks draw are not saved: they are functions of seed, epoch and step. Of
    several processes, the first one writes and reads for all, because all have the same weights.
    """

    def __init__(self, path: Path, identity: str) -> None:
        """Use the file at ``path`` for the run with this ``identity`` (a digest of settings and inputs)."""
        self.path = path
        self.previous = path.with_name(f"{path.stem}.previous{path.suffix}")
        self.identity = identity
        self._saved = time.monotonic()

    @contextmanager
    def exclusively(self) -> Iterator[None]:
        """Keep other processes from training into this file; first wait until none does.

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
                    log.warning("%s: another process is training into this file; waiting until it ends", self.path)
                    fcntl.flock(file, fcntl.LOCK_EX)
                except OSError as error:
                    raise BingoError(
                        f"{lock}: this file system has no locks ({error.strerror}); mount it with flock"
                    ) from error
                # The process that was waited for removes its lock, which then excludes nobody else.
                if os.fstat(file.fileno()).st_nlink > 0:
                    yield
                    return

    def save(self, module: nn.Module, optimizer: torch.optim.Optimizer, position: TrainingPosition) -> None:
        """Write the state at ``position``, and keep the previous one."""
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
        torch.save(state, content)  # not to the file: on a full disk, torch's error does not say so
        with atomic_write(self.path) as temporary:
            temporary.write_bytes(content.getbuffer())
            with temporary.open("rb") as file:
                os.fsync(file.fileno())  # now, so that there is hardly a moment without a newest state
            if self.path.exists():
                self.path.replace(self.previous)

    def save_if_due(
        self, module: nn.Module, optimizer: torch.optim.Optimizer, position: TrainingPosition, asked_to_end: bool
    ) -> None:
        """Save after an epoch, every ten minutes within one, and when the process is asked to end.

        Raises:
            BingoError: the process is asked to end.
        """
        if position.step == 0 or asked_to_end or time.monotonic() - self._saved >= _SECONDS_BETWEEN_SAVES:
            if position.means.first_bad_step() is not None:
                return  # the loop will soon report this; the last finite state is kept
            self.save(module, optimizer, position)
        if asked_to_end and not is_first():
            sys.exit(1)  # the first process says why
        if asked_to_end:
            raise BingoError(f"asked to end; {self.path} holds the state after {position}; run again to resume")

    def restore(self, module: nn.Module, optimizer: torch.optim.Optimizer, device: torch.device) -> TrainingPosition:
        """Load the state, if there is one of this identity, and return its position; without one, the start."""
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
        """Remove the files: the result is written."""
        if is_first():
            for path in (self.path, self.previous, self.path.with_name(f".{self.path.name}.lock")):
                path.unlink(missing_ok=True)

    def _read(self, module: nn.Module) -> dict[str, Any] | None:
        """Return the newest undamaged state of this identity."""
        for path in (self.path, self.previous):
            fallback = path == self.path and self.previous.exists()
            instead = "trying the previous state" if fallback else "training starts from the beginning"
            try:
                _require_whole(path)
                state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
                if state["identity"] != self.identity:
                    log.warning("%s: belongs to other settings or inputs; %s", path, instead)
                    continue
                _require_shapes(state["module"], module)
            except FileNotFoundError:
                continue
            except _DAMAGED as error:
                log.warning("%s: damaged (%s); %s", path, " ".join(str(error).split()), instead)
                path.unlink(missing_ok=True)  # or the next save would replace the previous state by it
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
    """Check the checksums of the zip archive that torch writes; torch ignores them when it reads."""
    with zipfile.ZipFile(path) as archive:
        if (name := archive.testzip()) is not None:
            raise zipfile.BadZipFile(f"{name} does not match its checksum")
