"""Progress of a running stage: a bar on a terminal, and the same facts as plain lines in the log."""

import fcntl
import logging
import os
import sys
import time
from contextlib import suppress
from types import TracebackType
from typing import Self, TextIO

from rich import progress as rich_progress
from rich.console import Console

log = logging.getLogger(__name__)
_SECONDS_BETWEEN_LINES = 15.0


class Progress:
    """Count items towards a total.

    Parallel jobs share one terminal: the first job to claim it shows its bar, the others wait.
    """

    def __init__(self, title: str, total: int, unit: str, done: int = 0) -> None:
        """Start counting.

        Args:
            title: name of the task.
            total: total number of items.
            unit: name of the items, in the plural.
            done: items finished in an earlier run; excluded from the rate.
        """
        self.title, self.total, self.unit, self.done = title, total, unit, done
        self._first, self._start = done, time.monotonic()
        self._next_line = self._start + _SECONDS_BETWEEN_LINES
        self._bar: rich_progress.Progress | None = None
        self._terminal = _open_terminal()

    def __enter__(self) -> Self:
        """Show the bar."""
        self._claim_terminal()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Remove the bar; log the final line unless an exception occurred."""
        if self._bar is not None:
            self._bar.stop()
        if self._terminal is not None:
            self._terminal.close()
        if error is None:
            log.info("%s", self.facts())

    def advance(self, items: int, note: str = "") -> None:
        """Add ``items`` to the count; show ``note`` after the numbers."""
        self.done += items
        now = time.monotonic()
        self._claim_terminal()
        if self._bar is not None:
            self._bar.update(
                rich_progress.TaskID(0), completed=self.done, note=f"{self._rate():,.0f} {self.unit}/s {note}"
            )
        if now >= self._next_line:
            self._next_line = now + _SECONDS_BETWEEN_LINES
            log.info("%s%s", self.facts(), f", {note}" if note else "")

    def facts(self) -> str:
        """Return title, count, rate and time left as one line."""
        rate = self._rate()
        left = (self.total - self.done) / rate if rate > 0 else 0.0
        return (
            f"{self.title}: {self.done:,} of {self.total:,} {self.unit}, {rate:,.0f} {self.unit}/s, "
            f"{int(left) // 60}:{int(left) % 60:02d} left"
        )

    def _rate(self) -> float:
        return (self.done - self._first) / max(time.monotonic() - self._start, 1e-9)

    def _claim_terminal(self) -> None:
        if self._terminal is None or self._bar is not None:
            return
        with suppress(BlockingIOError):
            fcntl.flock(self._terminal, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._bar = rich_progress.Progress(
                rich_progress.TextColumn("{task.description}"),
                rich_progress.BarColumn(),
                rich_progress.TaskProgressColumn(),
                rich_progress.TimeRemainingColumn(),
                rich_progress.TextColumn("{task.fields[note]}"),
                console=Console(stderr=True),
                transient=True,
            )
            self._bar.add_task(self.title, total=self.total, completed=self.done, note="")
            self._bar.start()


def _open_terminal() -> TextIO | None:
    if not sys.stderr.isatty():
        return None
    with suppress(OSError):
        return open(os.ttyname(sys.stderr.fileno()), "w")  # noqa: PTH123
    return None
