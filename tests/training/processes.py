"""Functions run in several processes that share a gloo group."""

import multiprocessing
import os
import pickle
import socket
import traceback

import torch

from bingo.training.distributed import init_processes


def run_in_processes(count, function, *arguments):
    """Return what ``function(*arguments)`` returns in each of ``count`` processes, in the order of ranks."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    context = multiprocessing.get_context("fork")
    answers = context.SimpleQueue()
    started = [
        context.Process(target=_in_process, args=(rank, count, port, answers, function, arguments), daemon=True)
        for rank in range(count)
    ]
    for process in started:
        process.start()
    found = dict(pickle.loads(answers.get()) for _ in started)
    for process in started:
        process.join()
    for failure in found.values():
        if isinstance(failure, str):
            raise AssertionError(failure)
    return [found[rank][0] for rank in range(count)]


def _in_process(rank, count, port, answers, function, arguments):
    environment = {
        "RANK": rank,
        "LOCAL_RANK": rank,
        "WORLD_SIZE": count,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port,
    }
    os.environ.update({name: str(value) for name, value in environment.items()})
    torch.set_num_threads(1)
    try:
        init_processes()
        answers.put(pickle.dumps((rank, (function(*arguments),))))
        if count > 1:
            torch.distributed.barrier()
    except BaseException:
        answers.put(pickle.dumps((rank, traceback.format_exc())))
