"""Launching: the command for each number of GPUs and nodes, and GPUs that no two launches hold at once."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bingo.cli import launch as module
from bingo.cli.launch import command, launch, visible_devices
from bingo.errors import BingoError

ROOT = Path(__file__).parents[2]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run"]
# In the place of a stage: writes which devices it has, and when it had them.
STAGE = """
import os, sys, time
devices = os.environ["CUDA_VISIBLE_DEVICES"]
begin = time.monotonic()
print("running", devices, flush=True)
time.sleep(float(os.environ["SECONDS"]))
print(begin, time.monotonic(), flush=True)
"""
LAUNCH = """
import sys
from bingo.cli import launch
launch.command = lambda stage, gpus, nodes, processes: [sys.executable, "-c", stage[0]]
launch.launch([sys.argv[2]], int(sys.argv[1]))
"""


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """Pretend that this machine has so many GPUs, and no SLURM."""

    def pretend(gpus):
        tool = tmp_path / "bin" / "nvidia-smi"
        tool.parent.mkdir(exist_ok=True)
        lines = "".join(f"echo 'GPU {i}: NVIDIA Make-Believe (UUID: GPU-{i}a-b)'\n" for i in range(gpus))
        tool.write_text(f'#!/bin/sh\ntest "$1" = -L || exit 1\n{lines}')
        tool.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tool.parent}:{os.environ['PATH']}")

    (tmp_path / "locks").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "locks"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    for name in ("SLURM_JOB_ID", "CUDA_VISIBLE_DEVICES", "BINGO_JOBS_PER_GPU", "BINGO_PARENT"):
        monkeypatch.delenv(name, raising=False)
    return pretend


@pytest.fixture
def launches():
    """Start launches of the stage above; none of them outlives the test."""
    started = []

    def start(gpus, seconds, **environment):
        process = subprocess.Popen(
            [sys.executable, "-c", LAUNCH, str(gpus), STAGE],
            env={**os.environ, "SECONDS": str(seconds), **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def finish(process):
    """Return the devices of a launch, and from when to when it had them."""
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    first, second = output.splitlines()
    begin, end = map(float, second.split())
    return set(first.removeprefix("running ").split(",")), begin, end


@pytest.mark.parametrize(
    ("gpus", "jobs"),
    [
        (2, [1, 1, 1]),
        pytest.param(2, [2, 1, 2, 1], marks=pytest.mark.slow),
        pytest.param(3, [2, 2, 1, 3], marks=pytest.mark.slow),
    ],
)
def test_no_two_launches_hold_a_device_at_once_and_all_get_theirs(machine, launches, gpus, jobs):
    machine(gpus)
    runs = [finish(process) for process in [launches(count, 0.5) for count in jobs]]
    assert [len(devices) for devices, _, _ in runs] == jobs
    for i, (devices, begin, end) in enumerate(runs):
        for others, other_begin, other_end in runs[:i]:
            assert devices.isdisjoint(others) or end <= other_begin or other_end <= begin


def test_launches_that_fit_run_side_by_side(machine, launches):
    machine(2)
    first, second = launches(1, 60), launches(1, 60)
    assert {first.stdout.readline(), second.stdout.readline()} == {"running GPU-0a-b\n", "running GPU-1a-b\n"}


@pytest.mark.slow
def test_as_many_launches_as_are_allowed_share_a_device_and_idle_ones_are_taken_first(machine, launches):
    machine(2)
    sharing = {"BINGO_JOBS_PER_GPU": "2"}
    held = [launches(1, 60, **sharing).stdout.readline() for _ in range(4)]
    assert set(held[:2]) == set(held[2:]) == {"running GPU-0a-b\n", "running GPU-1a-b\n"}
    waiting = launches(1, 0, **sharing)
    time.sleep(1)
    assert waiting.poll() is None


@pytest.mark.slow
def test_a_device_that_has_become_idle_is_taken_before_one_that_is_held(machine, launches):
    machine(2)
    sharing = {"BINGO_JOBS_PER_GPU": "2"}
    held = []
    for device in ("GPU-0a-b", "GPU-1a-b", "GPU-0a-b"):
        held.append(launches(1, 60, **sharing))
        assert held[-1].stdout.readline() == f"running {device}\n"
    for process in held[:2]:  # the first device's second place stays held
        process.kill()
        process.wait()
    assert launches(1, 60, **sharing).stdout.readline() == "running GPU-1a-b\n"


@pytest.mark.slow
def test_a_launch_that_is_killed_frees_its_devices(machine, launches):
    machine(1)
    holder = launches(1, 60)
    assert holder.stdout.readline() == "running GPU-0a-b\n"
    waiting = launches(1, 0)
    time.sleep(1)
    assert waiting.poll() is None
    holder.send_signal(signal.SIGKILL)
    assert finish(waiting)[0] == {"GPU-0a-b"}


@pytest.mark.slow
def test_one_that_is_killed_while_it_waits_holds_nobody_up(machine, launches):
    machine(2)
    holder = launches(1, 60)
    holder.stdout.readline()
    wants_both = launches(2, 0)
    time.sleep(1)
    wants_both.kill()
    assert finish(launches(1, 0))[0] == {"GPU-1a-b"}


@pytest.mark.parametrize(
    ("chosen", "devices"),
    [
        (None, ["GPU-0a-b", "GPU-1a-b", "GPU-2a-b"]),
        ("2,0", ["GPU-2a-b", "GPU-0a-b"]),
        ("GPU-1a-b", ["GPU-1a-b"]),
        ("GPU-1", ["GPU-1a-b"]),
        ("", []),
    ],
)
def test_devices_are_chosen_from_those_that_are_visible(machine, monkeypatch, chosen, devices):
    machine(3)
    if chosen is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", chosen)
    assert visible_devices() == devices


@pytest.mark.parametrize("chosen", ["3", "-1", "GPU-", "x"])
def test_a_visible_device_that_there_is_not_is_refused(machine, monkeypatch, chosen):
    machine(3)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", chosen)
    with pytest.raises(BingoError, match=rf"^CUDA_VISIBLE_DEVICES: .*{chosen}"):
        visible_devices()


@pytest.fixture
def executed(monkeypatch):
    """Take note of commands that would replace this process."""
    commands = []
    monkeypatch.setattr(module.os, "execvp", lambda _, words: commands.append(words))
    return commands


@pytest.mark.parametrize(
    ("gpus", "name", "value", "key"),
    [
        *((1, "BINGO_JOBS_PER_GPU", value, "BINGO_JOBS_PER_GPU") for value in ("0", "-1", "two", "1.5", "")),
        (3, "BINGO_JOBS_PER_GPU", "1", "--gpus"),
        (2, "CUDA_VISIBLE_DEVICES", "1", "--gpus"),
        (1, "CUDA_VISIBLE_DEVICES", "", "--gpus"),
    ],
)
def test_devices_and_jobs_that_there_cannot_be_are_refused(machine, executed, monkeypatch, gpus, name, value, key):
    machine(2)
    monkeypatch.setenv(name, value)
    with pytest.raises(BingoError, match=f"^{key}: "):
        launch(["bags"], gpus)


@pytest.mark.parametrize(("gpus", "slurm", "devices"), [(2, {"SLURM_JOB_ID": "7"}, "4,5"), (0, {}, "")])
def test_slurm_has_chosen_the_devices_and_without_gpus_a_stage_sees_none(
    machine, executed, monkeypatch, gpus, slurm, devices
):
    machine(1)
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "4,5", **slurm}
    monkeypatch.setattr(os, "environ", environment)
    launch(["teacher"], gpus)
    assert environment["CUDA_VISIBLE_DEVICES"] == devices
    assert len(executed) == (gpus > 1)


def test_command_is_the_stage_itself_or_torchrun(monkeypatch):
    stage = ["teacher", "--log", "a b"]
    for gpus, processes in ((0, 0), (1, 1), (4, 1)):
        assert command(stage, gpus, 1, processes) == [sys.executable, "-m", "bingo", *stage]
    torchrun = [*TORCHRUN, "--nproc-per-node", "4", "--standalone", "-m", "--", "bingo", *stage]
    assert command(stage, 4, 1, 4) == torchrun


def test_command_on_several_nodes_is_a_torchrun_on_each(monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "123456")
    words = command(["teacher"], 16, 2, 16)
    assert words[: words.index(sys.executable)] == [
        "srun", "--overlap", "--nodes", "2", "--ntasks", "2", "--ntasks-per-node", "1", "--cpu-bind", "none",
    ]  # fmt: skip
    meeting = ["--rdzv-backend", "c10d", "--rdzv-endpoint", f"{socket.gethostname()}:23456", "--rdzv-id", "123456"]
    assert words[words.index(sys.executable) :] == [
        *TORCHRUN, "--nproc-per-node", "8", "--nnodes", "2", *meeting, "-m", "--", "bingo", "teacher",
    ]  # fmt: skip


@pytest.mark.parametrize(("gpus", "job", "key"), [(4, None, "--nodes"), (3, "7", "--gpus")])
def test_nodes_outside_slurm_or_of_unequal_gpus_are_refused(machine, monkeypatch, gpus, job, key):
    if job is not None:
        monkeypatch.setenv("SLURM_JOB_ID", job)
    with pytest.raises(BingoError, match=f"^{key}: "):
        command(["teacher"], gpus, 2, gpus)


# A stage that takes a second to end after a signal, as one that saves its state.
SAVES = """
import os, signal, sys, time
from pathlib import Path
def save(number, frame):
    time.sleep(1)
    Path(sys.argv[1], f"saved-{os.environ['RANK']}").touch()
    os._exit(3)
for number in (signal.SIGTERM, signal.SIGUSR1):
    signal.signal(number, save)
Path(sys.argv[1], f"started-{os.environ['RANK']}").touch()
time.sleep(60)
"""


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_torchrun_hands_signals_on_and_waits_for_a_state_to_be_saved(machine, tmp_path, number):
    machine(2)
    (tmp_path / "package" / "bingo").mkdir(parents=True)
    (tmp_path / "package" / "bingo" / "__main__.py").write_text(SAVES)
    code = "import os, sys; from bingo.cli.launch import launch; os.environ['PYTHONPATH'] = sys.argv[1]"
    process = subprocess.Popen(
        [
            *(sys.executable, "-c", f"{code}; launch(sys.argv[2:], 2)", str(tmp_path / "package"), str(tmp_path)),
            # Options of a stage, some of which begin as torchrun's own do.
            *("--log", "x", "--name", "y", "--settings", "{}", "--threads", "1"),
        ],
        cwd=tmp_path / "package",
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + 90
        while len(list(tmp_path.glob("started-*"))) < 2:
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process.send_signal(number)
        assert process.wait(timeout=60) != 0
    finally:
        process.kill()
        process.wait()
    assert {path.name for path in tmp_path.glob("saved-*")} == {"saved-0", "saved-1"}
