"""Several processes for one job, started by torchrun. Every function also works in a single process.

All state is in torch.distributed's default process group.
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
"""How long processes wait for each other; long, because rank 0 writes states and artifacts alone."""


def init_processes() -> torch.device:
    """Join the process group, if the job has several processes, and return this process's device."""
    world_size = int(os.environ.get("WORLD_SIZE", "1"))
    device = pick_device(int(os.environ.get("LOCAL_RANK", "0")))
    if world_size > 1:
        # gloo for CPU tensors, so that collectives on the host do not wait for the GPUs.
        dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo", timeout=_TIMEOUT)
    return device


def leave() -> None:
    """Leave the process group after success. After a failure, do not call this: it would wait for the others."""
    if dist.is_initialized():
        dist.destroy_process_group()


def processes() -> int:
    """Return the number of processes."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """Return the rank of this process, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def is_first() -> bool:
    """Tell whether this is rank 0, which writes the outputs of the job."""
    return rank() == 0


def gather_rows(rows: Tensor) -> Tensor:
    """Concatenate the rows of all processes, in rank order: (b, ...) to (B, ...). Each process may have another b."""
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
    """Average scalars over the processes; all processes must pass the same names."""
    if processes() == 1:
        return values
    total = torch.stack(list(values.values()))
    dist.all_reduce(total)
    return dict(zip(values, total / processes(), strict=True))


def any_process(answer: bool) -> bool:
    """Tell whether ``answer`` is true in any process."""
    if processes() == 1:
        return answer
    votes = torch.tensor(int(answer))
    dist.all_reduce(votes)
    return bool(votes)


def broadcast_from_first(make: Callable[[], Value]) -> Value:
    """Call ``make`` in rank 0, and return its result in all processes."""
    if processes() == 1:
        return make()
    objects: list[Any] = [make() if is_first() else None]
    dist.broadcast_object_list(objects, src=0, device=torch.device("cpu"))
    value: Value = objects[0]
    return value


def average_gradients(module: nn.Module) -> nn.Module:
    """Wrap a module so that its gradients are averaged over the processes.

    Buffers are not synchronised. Queues are equal in all processes anyway, and rank 0's running batch-norm statistics
    are the ones that are saved.
    """
    if processes() == 1:
        return module
    with warnings.catch_warnings(action="ignore", category=FutureWarning):
        # broadcast_buffers is deprecated, but torch 2.11, which also works, does not have its successor.
        return DistributedDataParallel(module, broadcast_buffers=False)


def share_buffers(module: nn.Module) -> None:
    """Copy rank 0's buffers of a module to all processes."""
    if processes() > 1:
        for buffer in module.buffers():
            dist.broadcast(buffer, src=0)


def compute_shared(inputs: Sequence[Value], compute: Callable[[Iterable[Value]], Iterator[Item]]) -> Iterator[Item]:
    """Distribute ``inputs`` over the processes, and yield all results, in order, in rank 0.

    The other processes must exhaust the iterator too; it yields nothing there.

    Args:
        inputs: what to compute.
        compute: maps an iterable of inputs to one result each, in order; tensors on the CPU.
    """
    if processes() == 1:
        yield from compute(inputs)
        return
    local = compute(islice(inputs, rank(), None, processes()))
    for start in range(0, len(inputs), processes()):
        gathered: list[Any] | None = [None] * processes() if is_first() else None
        dist.gather_object(next(local, None), gathered)
        yield from (gathered or [])[: len(inputs) - start]


def exhaust(shared: Iterator[object]) -> None:
    """Run `compute_shared` in a process other than rank 0."""
    for _ in shared:
        pass
