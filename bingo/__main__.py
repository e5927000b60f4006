"""Run the command line as ``python -m bingo``."""

import atexit
import os
import sys

from bingo.cli import main


def _leave() -> None:
    """End at once: the interpreter would take all of torch apart first, object by object."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


atexit.register(_leave)  # called last, as it comes before all that a stage registers
try:
    main()
except BaseException as end:
    if not isinstance(end, SystemExit) or end.code:
        atexit.unregister(_leave)
    raise
