"""Run a stage with one process per GPU: choose the GPUs, then go on as the stage itself, or become torchrun."""

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
"""What torchrun hands on to its processes; SLURM warns of a time limit by SIGUSR1."""
_SECONDS_TO_SAVE = 60
"""How long torchrun waits for its processes after a signal."""

_BINGO_COMMAND = [sys.executable, "-m", "bingo"]


def launch(stage: Sequence[str], gpus: int, nodes: int = 1, processes: int | None = None) -> None:
    """Let a stage have ``gpus`` GPUs in all: return to a caller that goes on as its one process, or become torchrun.

    So signals reach the stage itself. Without GPUs the stage sees none. Outside SLURM the GPUs are claimed until the
    stage ends, however it ends; BINGO_JOBS_PER_GPU launches may share one.

    Args:
        stage: name of the stage, and its options.
        gpus: GPUs over all nodes.
        nodes: nodes of the SLURM job, of equally many GPUs.
        processes: processes on one node; one per GPU if not given.

    Raises:
        BingoError: there are not so many GPUs, or they cannot be shared out among the nodes.
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
        # Processes end with torchrun too. On another node these ids would be those of strangers.
        os.environ["BINGO_PARENT"] = f"{parents} {os.getpid()}".strip()
    os.environ |= {
        "LOGLEVEL": "CRITICAL",  # torchrun's own: it would warn at each start of the OMP_NUM_THREADS that it sets
        "PET_SIGNALS_TO_HANDLE": _SIGNALS,
        "PET_SHUTDOWN_TIMEOUT": str(_SECONDS_TO_SAVE),
    }
    os.execvp(words[0], words)


def command(stage: Sequence[str], gpus: int, nodes: int, processes: int) -> list[str]:
    """Return the command that runs a stage.

    Raises:
        BingoError: the GPUs cannot be shared out among the nodes.
    """
    if nodes > 1 and gpus > 0:
        return _on_nodes(stage, gpus, nodes)
    if processes > 1:
        return [*_torchrun(processes), "--standalone", "-m", "--", "bingo", *stage]
    return [*_BINGO_COMMAND, *stage]


def visible_devices() -> list[str]:
    """Return the UUIDs of the GPUs that may be used, of those that `nvidia-smi` lists.

    UUIDs, because CUDA counts GPUs in another order than `nvidia-smi`.

    Raises:
        BingoError: CUDA_VISIBLE_DEVICES names a GPU that there is not.
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
        found = [device for i, device in enumerate(devices) if name == str(i) or device.startswith(name)]
        if len(found) != 1:
            raise BingoError(f"CUDA_VISIBLE_DEVICES: nvidia-smi lists no GPU {name} among its {len(devices)}")
        visible += found
    return visible


def jobs_per_gpu() -> int:
    """Return how many launches may hold a GPU at once, BINGO_JOBS_PER_GPU, which is 1 if not set.

    Raises:
        BingoError: it is no number of 1 or more.
    """
    chosen = os.environ.get("BINGO_JOBS_PER_GPU", "1")
    if not re.fullmatch(r"[1-9]\d*", chosen, re.ASCII):
        raise BingoError(f"BINGO_JOBS_PER_GPU: is a number of jobs, 1 or more, found {chosen}")
    return int(chosen)


def claim(devices: Sequence[str], count: int, jobs: int) -> list[str]:
    """Return ``count`` of ``devices`` that fewer than ``jobs`` launches of this user hold; wait while there are none.

    A claim is a lock on a file that this process, and what it becomes, keeps open. GPUs that fewest hold come first.

    Raises:
        BingoError: there are fewer devices, or the locks cannot be written.
    """
    if not devices:
        raise BingoError("--gpus: nvidia-smi shows no GPU here; to compute on the CPU, --gpus 0")
    if count > len(devices):
        raise BingoError(f"--gpus: {count} are more than the {len(devices)} GPUs there are; ask for fewer")
    folder = Path(tempfile.gettempdir(), f"bingo-{os.getuid()}")
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        # Those who wait stand in a line; two that want several GPUs would otherwise each hold what the other lacks.
        with (folder / "line.lock").open("w") as line:
            if not _lock(line.fileno(), wait=False):
                log.info("waiting for %d of %d GPUs", count, len(devices))
                _lock(line.fileno(), wait=True)
            held: list[str] = []
            while True:
                free = {device: _free_places(folder, device, jobs) for device in devices if device not in held}
                for device in sorted(free, key=lambda device: -len(free[device])):
                    if free[device] and len(held) < count:
                        os.set_inheritable(free[device].pop(), True)
                        held.append(device)
                for slot in chain.from_iterable(free.values()):
                    os.close(slot)
                if len(held) == count:
                    return held
                time.sleep(0.2)
    except OSError as error:
        raise BingoError(f"{folder}: cannot be written ({error.strerror}); check space and rights") from error


def _free_places(folder: Path, device: str, jobs: int) -> list[int]:
    """Lock all places of a device that nobody holds, and return their open files."""
    slots = [os.open(folder / f"{device}.{place}.lock", os.O_RDWR | os.O_CREAT, 0o600) for place in range(jobs)]
    free = [_lock(slot, wait=False) for slot in slots]
    for slot in compress(slots, [not own for own in free]):
        os.close(slot)
    return list(compress(slots, free))


def _lock(file: int, *, wait: bool) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    return True


def _on_nodes(stage: Sequence[str], gpus: int, nodes: int) -> list[str]:
    job = os.environ.get("SLURM_JOB_ID")
    if job is None:
        raise BingoError(f"--nodes: {nodes} nodes are found only inside a SLURM job; leave --nodes out")
    if gpus % nodes:
        raise BingoError(f"--gpus: {gpus} cannot be shared out evenly among {nodes} nodes")
    # A job's script runs on the first of its nodes. Jobs that share a node must not share a port.
    endpoint = f"{socket.gethostname()}:{20000 + int(job) % 10000}"
    srun = ["srun", "--overlap", "--nodes", str(nodes), "--ntasks", str(nodes), "--ntasks-per-node", "1"]
    meeting = ["--nnodes", str(nodes), "--rdzv-backend", "c10d", "--rdzv-endpoint", endpoint, "--rdzv-id", job]
    return [*srun, "--cpu-bind", "none", *_torchrun(gpus // nodes), *meeting, "-m", "--", "bingo", *stage]


def _torchrun(processes: int) -> list[str]:
    return [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(processes)]
