"""SLURM on this one machine, with two make-believe GPUs: Debian's slurm-wlm and munge, as root."""

import os
import shutil
import socket
import stat
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

ETC = Path("/etc/slurm")
OURS = "ClusterName=bingo-test"
"""By this a configuration is known that a killed run of the tests has left."""
# Jobs wait for cores that are there in name only: what limits them is the GPUs.
CONF = """{ours}
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
TaskProlog={folder}/prolog
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerParameters=sched_interval=1,bf_interval=1
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
MinJobAge=600
KillWait=10
ReturnToService=2
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmdParameters=config_overrides
GresTypes=gpu
NodeName={host} NodeAddr=127.0.0.1 CPUs=4 RealMemory=300000 Gres=gpu:2 State=UNKNOWN
PartitionName=cpu Nodes={host} Default=YES MaxTime=INFINITE State=UP
PartitionName=gpu Nodes={host} MaxTime=INFINITE State=UP
"""
# Every task notes which devices SLURM gave it.
PROLOG = """#!/bin/sh
echo "$SLURM_JOB_ID ${{CUDA_VISIBLE_DEVICES-none}}" >> {folder}/devices
"""


@dataclass(frozen=True)
class JobRecord:
    """What SLURM remembers of a job."""

    comment: str
    """`rule_<rule>_wildcards_<values>`, from Snakemake."""
    state: str
    partition: str
    begin: str
    """Time stamps, to be compared as text."""
    end: str
    gpus: str
    """What was asked for; empty for none."""
    devices: str
    """CUDA_VISIBLE_DEVICES of its tasks, `none` where it was not set."""

    @property
    def rule(self) -> str:
        """Name of the rule."""
        return self.comment.removeprefix("rule_").partition("_wildcards_")[0]


@dataclass(frozen=True)
class Cluster:
    """A SLURM that runs."""

    folder: Path

    def jobs(self) -> dict[str, JobRecord]:
        """Return all jobs by their numbers."""
        devices = dict(line.split() for line in (self.folder / "devices").read_text().splitlines())
        records = {}
        shown = _ask("scontrol", "show", "job", "-o").splitlines()
        for block in (line for line in shown if line.startswith("JobId=")):  # else: there are no jobs
            facts = dict(word.split("=", 1) for word in block.split() if "=" in word)
            records[facts["JobId"]] = JobRecord(
                comment=facts.get("Comment", ""),
                state=facts["JobState"],
                partition=facts["Partition"],
                begin=facts["StartTime"],
                end=facts["EndTime"],
                gpus=facts.get("TresPerJob", ""),
                devices=devices.get(facts["JobId"], ""),
            )
        return records


@contextmanager
def slurm(folder: Path) -> Iterator[Cluster]:
    """Run SLURM, with its files in ``folder``, until the block ends."""
    for tool in ("munged", "slurmctld", "slurmd"):
        assert shutil.which(tool), f"there is no {tool}: apt-get install slurm-wlm munge"
    assert os.getuid() == 0, "SLURM's daemons are started as root"
    _sweep()
    host = socket.gethostname().partition(".")[0]
    for name in ("state", "spool"):
        (folder / name).mkdir(parents=True)
    (folder / "devices").touch()
    (folder / "prolog").write_text(PROLOG.format(folder=folder))
    (folder / "prolog").chmod(0o755)
    for i in range(2):
        os.mknod(folder / f"nvidia{i}", stat.S_IFCHR | 0o666, os.makedev(195, i))
    with ExitStack() as stack:
        # Here and nowhere else: Snakemake strips SLURM_CONF from a job's environment.
        for name, text in {
            "slurm.conf": CONF.format(ours=OURS, folder=folder, host=host),
            "gres.conf": f"AutoDetect=off\nNodeName={host} Name=gpu File={folder}/nvidia[0-1]\n",
        }.items():
            stack.callback((ETC / name).unlink, missing_ok=True)
            (ETC / name).write_text(text)
        munge = Path("/run/munge")
        munge.mkdir(exist_ok=True)
        shutil.chown(munge, "munge", "munge")
        _daemon(stack, munge / "munged.pid", "runuser", "-u", "munge", "--", "munged")
        _daemon(stack, folder / "slurmctld.pid", "slurmctld", "-c")
        _daemon(stack, folder / "slurmd.pid", "slurmd")
        _wait(lambda: _ask("sinfo", "-h", "-p", "gpu", "-o", "%T").strip() == "idle", "SLURM did not become idle")
        stack.callback(_cancel_all)
        yield Cluster(folder)


def _sweep() -> None:
    """Remove what a killed run has left; a SLURM of the machine's own is left alone."""
    conf = ETC / "slurm.conf"
    if not conf.exists():
        return
    text = conf.read_text()
    assert text.startswith(OURS), f"{conf} exists: this machine has a SLURM of its own"
    for key in ("SlurmctldPidFile=", "SlurmdPidFile="):
        pid_file = Path(text.partition(key)[2].partition("\n")[0])
        daemon = key[: -len("PidFile=")].lower()
        with suppress(FileNotFoundError, ValueError):  # of a file without a number, or a process that is gone
            pid = int(pid_file.read_text())
            if Path(f"/proc/{pid}/comm").read_text().strip() == daemon:
                _stop(pid)
    conf.unlink()


def _daemon(stack: ExitStack, pid_file: Path, *command: str) -> None:
    subprocess.run(command, check=True, timeout=60)
    _wait(lambda: pid_file.exists() and pid_file.read_text().strip(), f"{command[-1]} did not start")
    stack.callback(_stop, int(pid_file.read_text()))


def _stop(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, 15)
    _wait(lambda: not Path(f"/proc/{pid}").exists(), f"process {pid} did not stop")


def _cancel_all() -> None:
    subprocess.run(["scancel", "--user=root"], check=False, timeout=60)
    _wait(lambda: not _ask("squeue", "-h"), "jobs did not end")


def _ask(*command: str) -> str:
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False, timeout=60).stdout


def _wait(condition, fault: str) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, fault
        time.sleep(0.1)
