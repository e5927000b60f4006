"""Run a stage with one process per GPU: choose the GPUs, then run the stage in this process or through torchrun."""

import fcntl
import logging
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from itertools import chain, compress
from pathlib import Path

from bingo.errors import BingoError

log = logging.getLogger(__name__)

_SIGNALS = "SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1"
"""Signals that torchrun forwards to its processes; SLURM sends SIGUSR1 before the time limit."""
_SECONDS_TO_SAVE = 60
"""Time that torchrun waits for its processes after a signal."""

_BINGO_COMMAND = [sys.executable, "-m", "bingo"]


def launch(stage: Sequence[str], gpus: int, nodes: int = 1, processes: int | None = None) -> None:
    """Prepare a stage with ``gpus`` GPUs: return if the caller runs it in this process, otherwise exec torchrun.

    Signals therefore reach the stage directly. With ``gpus`` 0, all GPUs are hidden. Outside SLURM, GPUs are locked
    until the stage ends; up to BINGO_JOBS_PER_GPU launches can share one GPU.

    Args:
        stage: name and options of the stage.
        gpus: number of GPUs over all nodes.
        nodes: number of nodes of the SLURM job; all have the same number of GPUs.
        processes: number of processes on one node; default: one per GPU.

    Raises:
        BingoError: there are too few GPUs, or they cannot be distributed evenly over the nodes.
    """
    words = command(stage, gpus, nodes, gpus if processes is None else processes)
    if gpus == 0:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    elif "SLURM_JOB_ID" not in os.environ:
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(claim(visible_devices(), gpus, jobs_per_gpu()))
    if words[: -len(stage)] == _BINGO_COMMAND:
        return
    parents = os.environ.pop("BINGO_PARENT", "")
    if nodes == 1:
        # Processes also end when torchrun does. Process ids are only valid on this node.
        os.environ["BINGO_PARENT"] = f"{parents} {os.getpid()}".strip()
    os.environ |= {
        "LOGLEVEL": "CRITICAL",  # silences torchrun's warning that it sets OMP_NUM_THREADS
        "PET_SIGNALS_TO_HANDLE": _SIGNALS,
        "PET_SHUTDOWN_TIMEOUT": str(_SECONDS_TO_SAVE),
    }
    os.execvp(words[0], words)


def command(stage: Sequence[str], gpus: int, nodes: int, processes: int) -> list[str]:
    """Return the command that runs a stage.

    Raises:
        BingoError: the GPUs cannot be distributed evenly over the nodes.
    """
    if nodes > 1 and gpus > 0:
        return _on_nodes(stage, gpus, nodes)
    if processes > 1:
        return [*_torchrun(processes), "--standalone", "-m", "--", "bingo", *stage]
    return [*_BINGO_COMMAND, *stage]


def visible_devices() -> list[str]:
    """Return the UUIDs of the usable GPUs that `nvidia-smi` lists.

    UUIDs are used because CUDA numbers GPUs differently from `nvidia-smi`.

    Raises:
        BingoError: CUDA_VISIBLE_DEVICES names a GPU that does not exist.
    """
    if shutil.which("nvidia-smi") is None:
        return []
    listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=False).stdout
    devices = re.findall(r"^GPU \d+: .*\(UUID: (\S+)\)", listed, re.MULTILINE)
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is None:
        return devices
    visible = []
    for name in filter(None, (part.strip() for part in chosen.split(","))):
        matches = [device for i, device in enumerate(devices) if name == str(i) or device.startswith(name)]
        if len(matches) != 1:
            raise BingoError(
                f"CUDA_VISIBLE_DEVICES: GPU {name} does not exist; nvidia-smi -L lists the {len(devices)} GPUs"
            )
        visible += matches
    return visible


def jobs_per_gpu() -> int:
    """Return the number of launches that can share a GPU: BINGO_JOBS_PER_GPU, by default 1.

    Raises:
        BingoError: the value is not a positive integer.
    """
    value = os.environ.get("BINGO_JOBS_PER_GPU", "1")
    if not re.fullmatch(r"[1-9]\d*", value, re.ASCII):
        raise BingoError(f"BINGO_JOBS_PER_GPU: must be an integer of 1 or more, found {value}")
    return int(value)


def claim(devices: Sequence[str], count: int, jobs: int) -> list[str]:
    """Lock and return ``count`` of ``devices``; wait until each is used by fewer than ``jobs`` launches of this user.

    The lock is on a file that stays open in this process, also after exec. The least used GPUs are preferred.

    Raises:
        BingoError: there are fewer than ``count`` devices, or the lock files cannot be written.
    """
    if not devices:
        raise BingoError("--gpus: nvidia-smi shows no GPU; use --gpus 0 to compute on the CPU")
    if count > len(devices):
        raise BingoError(f"--gpus: {count} GPUs requested, but there are {len(devices)}; request fewer")
    folder = Path(tempfile.gettempdir(), f"bingo-{os.getuid()}")
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        # A queue: two launches that each hold a part of their GPUs would wait for each other forever.
        with (folder / "line.lock").open("w") as queue:
            if not _lock(queue.fileno(), wait=False):
                log.info("waiting for %d of %d GPUs", count, len(devices))
                _lock(queue.fileno(), wait=True)
            claimed: list[str] = []
            while True:
                free = {device: _free_slots(folder, device, jobs) for device in devices if device not in claimed}
                for device in sorted(free, key=lambda device: -len(free[device])):
                    if free[device] and len(claimed) < count:
                        os.set_inheritable(free[device].pop(), True)
                        claimed.append(device)
                for slot in chain.from_iterable(free.values()):
                    os.close(slot)
                if len(claimed) == count:
                    return claimed
                time.sleep(0.2)
    except OSError as error:
        raise BingoError(f"{folder}: cannot be written ({error.strerror}); check space and permissions") from error


def _free_slots(folder: Path, device: str, jobs: int) -> list[int]:
    """Lock all free slots of a device, and return their file descriptors."""
    slots = [os.open(folder / f"{device}.{number}.lock", os.O_RDWR | os.O_CREAT, 0o600) for number in range(jobs)]
    locked = [_lock(slot, wait=False) for slot in slots]
    for slot in compress(slots, [not is_locked for is_locked in locked]):
        os.close(slot)
    return list(compress(slots, locked))


def _lock(file: int, *, wait: bool) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    return True


def _on_nodes(stage: Sequence[str], gpus: int, nodes: int) -> list[str]:
    job = os.environ.get("SLURM_JOB_ID")
    if job is None:
        raise BingoError(f"--nodes: {nodes} nodes need a SLURM job; remove --nodes")
    if gpus % nodes:
        raise BingoError(f"--gpus: {gpus} GPUs cannot be distributed evenly over {nodes} nodes; use a multiple")
    # A job's script runs on the first of its nodes. Jobs on the same node need different ports.
    endpoint = f"{socket.gethostname()}:{20000 + int(job) % 10000}"
    srun = ["srun", "--overlap", "--nodes", str(nodes), "--ntasks", str(nodes), "--ntasks-per-node", "1"]
    rendezvous = ["--nnodes", str(nodes), "--rdzv-backend", "c10d", "--rdzv-endpoint", endpoint, "--rdzv-id", job]
    return [*srun, "--cpu-bind", "none", *_torchrun(gpus // nodes), *rendezvous, "-m", "--", "bingo", *stage]


def _torchrun(processes: int) -> list[str]:
    return [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(processes)]
