"""Several processes that share one job, started by torchrun; every function also serves a single process.

State is torch.distributed's own: the default process group.
"""

import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import timedelta
from itertools import islice
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from bingo.training.device import pick_device

Value = TypeVar("Value")
Item = TypeVar("Item")
_TIMEOUT = timedelta(hours=2)
"""How long processes wait for each other: the first one writes states and artifacts alone."""


def init_processes() -> torch.device:
    """Join the other processes of this job, if there are any, and return the device of this one."""
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    device = pick_device(int(os.environ.get("LOCAL_RANK", "0")))
    if processes > 1:
        # CPU tensors go by gloo beside NCCL, so that a question among hosts does not wait for the GPUs.
        dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo", timeout=_TIMEOUT)
    return device


def leave() -> None:
    """Part from the other processes, after work that ended well: a process that failed would wait for them."""
    if dist.is_initialized():
        dist.destroy_process_group()


def processes() -> int:
    """Return the number of processes."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """Return the position of this process among them, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def is_first() -> bool:
    """Tell whether this process writes what the job produces."""
    return rank() == 0


def gather_rows(rows: Tensor) -> Tensor:
    """Return the rows of all processes, in the order of ranks: (b, ...) of each to (B, ...).

    Numbers of rows may differ; what fills the shorter ones up on the way is dropped again.
    """
    if processes() == 1:
        return rows
    counts = torch.zeros(processes(), dtype=torch.int64)
    counts[rank()] = len(rows)
    dist.all_reduce(counts)
    padded = rows.new_zeros(int(counts.max()), *rows.shape[1:])
    padded[: len(rows)] = rows
    gathered = [torch.empty_like(padded) for _ in range(processes())]
    dist.all_gather(gathered, padded)
    return torch.cat([rows[:count] for rows, count in zip(gathered, counts.tolist(), strict=True)])


def mean(values: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the means over the processes of some scalars that all of them have."""
    if processes() == 1:
        return values
    total = torch.stack(list(values.values()))
    dist.all_reduce(total)
    return dict(zip(values, total / processes(), strict=True))


def any_process(answer: bool) -> bool:
    """Tell whether any process says yes."""
    if processes() == 1:
        return answer
    votes = torch.tensor(int(answer))
    dist.all_reduce(votes)
    return bool(votes)


def broadcast_from_first(make: Callable[[], Value]) -> Value:
    """Let the first process make a value, and return it in all of them."""
    if processes() == 1:
        return make()
    held: list[Any] = [make() if is_first() else None]
    dist.broadcast_object_list(held, src=0, device=torch.device("cpu"))
    value: Value = held[0]
    return value


def average_gradients(module: nn.Module) -> nn.Module:
    """Return a module whose gradients are averaged over the processes.

    Buffers are nobody's but each process's: queues are the same everywhere, and of batch-norm's running statistics
    those of the first process count.
    """
    if processes() == 1:
        return module
    with warnings.catch_warnings(action="ignore", category=FutureWarning):
        # Its successor, forward_sync_buffers, is not in torch 2.11.
        return DistributedDataParallel(module, broadcast_buffers=False)


def share_buffers(module: nn.Module) -> None:
    """Give all processes the first one's buffers of a module."""
    if processes() > 1:
        for buffer in module.buffers():
            dist.broadcast(buffer, src=0)


def compute_shared(places: Sequence[Value], compute: Callable[[Iterable[Value]], Iterator[Item]]) -> Iterator[Item]:
    """Yield, in the first process, what every place gives, in order; each is computed by one of the processes.

    The other processes must exhaust the iterator too, and get nothing.

    Args:
        places: what to compute, one after the other.
        compute: from some of the places to what each of them gives, in order; tensors on the CPU.
    """
    if processes() == 1:
        yield from compute(places)
        return
    own = compute(islice(places, rank(), None, processes()))
    for start in range(0, len(places), processes()):
        shares: list[Any] | None = [None] * processes() if is_first() else None
        dist.gather_object(next(own, None), shares)
        yield from (shares or [])[: len(places) - start]


def exhaust(shared: Iterator[object]) -> None:
    """Do this process's part of what `compute_shared` yields to the first one."""
    for _ in shared:
        pass
