"""Being asked to end: by a scheduler that takes the machine back, or whose time limit draws near."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

ASKS_TO_END = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)


@contextmanager
def asked_to_end() -> Iterator[Callable[[], str | None]]:
    """Yield a function that names the signal that has asked this process to end, None as long as none has.

    Within the block these signals end nothing: the block looks for them where it can save its state.
    """
    received: list[str] = []

    def remember(number: int, _: FrameType | None) -> None:
        received.append(signal.Signals(number).name)
        signal.signal(signal.SIGINT, signal.default_int_handler)  # who presses Ctrl-C once more will not wait

    before = {number: signal.signal(number, remember) for number in ASKS_TO_END}
    try:
        yield lambda: received[0] if received else None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def outlive() -> None:
    """Ignore these signals: whoever started this process decides when it ends."""
    for number in ASKS_TO_END:
        signal.signal(number, signal.SIG_IGN)
