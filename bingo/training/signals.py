"""Signals that ask a process to end: Ctrl-C, or a scheduler that preempts the job or reaches its time limit."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

END_SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)


@contextmanager
def catch_end_signals() -> Iterator[Callable[[], bool]]:
    """Catch END_SIGNALS within the block; yield a function that tells whether one has arrived.

    Call the function where the state can be saved, and then end the process.
    """
    received: list[int] = []

    def record(number: int, _: FrameType | None) -> None:
        received.append(number)
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a second Ctrl-C ends the process at once

    previous = {number: signal.signal(number, record) for number in END_SIGNALS}
    try:
        yield lambda: bool(received)
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def ignore_end_signals() -> None:
    """Ignore END_SIGNALS in a worker; its parent process decides when it ends."""
    for number in END_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
