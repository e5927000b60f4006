"""TensorBoard's event files: the scalars of a training, one point per epoch.

They are written as tensorboard's own records, here and now: `torch.utils.tensorboard` writes from a thread, where a
full disk ends in that thread's traceback.
"""

import logging
import os
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tensorboard.compat.proto.event_pb2 import Event

log = logging.getLogger(__name__)
_PATTERN = "events.out.tfevents.*"


class Events:
    """Appends to an event file of its own in a folder; where that cannot be written, says so once and gives up."""

    def __init__(self, folder: Path | None) -> None:
        """Use ``folder``, which is made when it is needed; None writes nothing."""
        self._path: Path | None = None
        if folder is not None:
            # TensorBoard reads the files of a folder in the order of their names, which begin with the time.
            name = _PATTERN.replace("*", f"{int(time.time()):010d}.{socket.gethostname()}.{os.getpid()}")
            self._path = folder / name

    def begin(self, epoch: int) -> None:
        """Go on with ``epoch``, counted from 1: what stands in the folder from it on is no longer shown.

        With the first epoch, the folder's old event files are removed.
        """
        if self._path is None:
            return
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog

        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            for old in self._path.parent.glob(_PATTERN) if epoch == 1 else ():
                old.unlink()
        except OSError as error:
            self._give_up(error)
        self._append(Event(wall_time=time.time(), file_version="brain.Event:2"))
        # What torch.utils.tensorboard calls purge_step.
        self._append(Event(wall_time=time.time(), step=epoch, session_log=SessionLog(status=SessionLog.START)))

    def write(self, epoch: int, scalars: Mapping[str, float]) -> None:
        """Write the scalars of an epoch, counted from 1, by their tags."""
        if self._path is None:
            return
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary

        values = [Summary.Value(tag=tag, simple_value=value) for tag, value in scalars.items()]
        self._append(Event(wall_time=time.time(), step=epoch, summary=Summary(value=values)))

    def _append(self, event: "Event") -> None:
        if self._path is None:
            return
        from tensorboard.summary.writer.record_writer import RecordWriter

        try:
            with self._path.open("ab") as file:
                RecordWriter(file).write(event.SerializeToString())
        except OSError as error:
            self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        log.warning("--events: %s cannot be written (%s); going on without it", self._path, error.strerror)
        self._path = None
