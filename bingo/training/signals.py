"""Signals that ask a process to end: the scheduler preempts the job or its time is nearly up, or Ctrl-C."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

END_SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)


@contextmanager
def catch_end_signals() -> Iterator[Callable[[], bool]]:
    """Yield a function that tells whether a signal has asked this process to end.

    Within the block, these signals do not end the process: the block calls the function where it can save its state.
    """
    received: list[int] = []

    def remember(number: int, _: FrameType | None) -> None:
        received.append(number)
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a second Ctrl-C ends it at once

    before = {number: signal.signal(number, remember) for number in END_SIGNALS}
    try:
        yield lambda: bool(received)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def ignore_end_signals() -> None:
    """Ignore these signals: the parent process decides when this one ends."""
    for number in END_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
