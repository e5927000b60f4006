"""Run the command line as ``python -m bingo``."""

import atexit
import logging
import os
import sys


def _leave() -> None:
    """End at once: the interpreter would take all of torch apart first, object by object."""
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


atexit.register(_leave)  # called last, as it comes before all that is registered by what is imported now

from bingo.cli import main  # noqa: E402

try:
    main()
except BaseException as end:
    if not isinstance(end, SystemExit) or end.code:
        atexit.unregister(_leave)
    raise
