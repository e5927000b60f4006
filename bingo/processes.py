"""torchrun, but for its reports: a process that failed has already said why, in a line of its own."""

import logging
import os
import sys

os.environ["LOGLEVEL"] = "CRITICAL"  # torchrun's own, read when it is imported

from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.run import main

if __name__ == "__main__":
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    try:
        main()
    except (ChildFailedError, SignalException):
        sys.exit(1)
