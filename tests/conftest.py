"""Helpers of tests of several packages."""

import os
import resource
from contextlib import contextmanager

from bingo.errors import BingoError

# Tests and their jobs share two cores: OpenMP threads that wait must not spin.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")


def pytest_collection_modifyitems(items):
    """Start with the longest files, so that two workers end together."""
    items.sort(key=lambda item: not item.nodeid.startswith(("tests/workflow", "tests/faults", "tests/docs")))


def refused(read, path):
    """Return the message with which a file is refused, or None where it is read."""
    try:
        read(path)
    except BingoError as error:
        message = str(error)
        assert message.startswith(f"{path}: ")
        assert "\n" not in message
        return message
    return None


@contextmanager
def disk_of(size):
    """Let no file grow beyond ``size`` bytes, as a full disk would."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
