"""What a person sees of a running stage: a bar on a terminal, the same facts as plain lines in a log."""

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
    """Counts items towards a total.

    Jobs that run side by side share one terminal: the first to ask gets the bar, the others wait for it.
    """

    def __init__(self, title: str, total: int, unit: str, done: int = 0) -> None:
        """Start counting.

        Args:
            title: what is going on.
            total: items there are.
            unit: what an item is, in the plural.
            done: items finished in an earlier run; they do not count for the rate.
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
        """Take the bar away; log the last line if all went well."""
        if self._bar is not None:
            self._bar.stop()
        if self._terminal is not None:
            self._terminal.close()
        if error is None:
            log.info("%s", self.facts())

    def advance(self, items: int, note: str = "") -> None:
        """Count ``items`` more; ``note`` is shown beside the numbers."""
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
        """Return title, count, rate and time left as a line."""
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
