"""SIGKILL in the middle of training: the next run resumes from the last epoch and ends with the same bytes."""

import re
import signal
import time

import psutil
import pytest

from .conftest import Workspace, tiny_study

pytestmark = pytest.mark.slow

TEACHER = "results/tiny/teachers/big.safetensors"
LOG = "logs/tiny/teacher/big.log"


def workspace_in(folder):
    study = tiny_study()
    study["teachers"]["big"]["training"] = {**study["teachers"]["big"]["training"], "epochs": 20}
    study["data"]["max_train"] = 512
    folder.mkdir()
    workspace = Workspace(folder)
    workspace.write(study)
    return workspace


def wait_for_epochs(log, count):
    deadline = time.monotonic() + 120
    while not log.exists() or len(re.findall(r"epoch \d+, lr", log.read_text())) < count:
        assert time.monotonic() < deadline, "training did not start"
        time.sleep(0.01)


def training(main):
    """Return the process of the stage."""
    children = psutil.Process(main.pid).children(recursive=True)
    (stage,) = [child for child in children if child.cmdline()[1:3] == ["-m", "bingo"]]
    return stage


def kill_stage(main):
    training(main).send_signal(signal.SIGKILL)
    main.communicate(timeout=60)
    assert main.returncode == 1


def kill_snakemake(main):
    orphan = training(main)
    main.kill()
    main.wait(timeout=60)
    orphan.wait(timeout=10)  # it ends by itself, so that no two of them train at once


def test_training_resumes_after_sigkill_and_ends_with_the_same_bytes(tmp_path):
    workspace, undisturbed = (workspace_in(tmp_path / name) for name in ("killed", "undisturbed"))
    log = workspace.folder / LOG
    for kill, epochs in ((kill_stage, 3), (kill_snakemake, 2)):
        log.unlink(missing_ok=True)  # else it shows the epochs of the run before
        main = workspace.start(TEACHER)
        wait_for_epochs(log, epochs)
        kill(main)
        assert not (workspace.folder / TEACHER).exists()
        assert list((workspace.folder / TEACHER).parent.glob("big.state*.pt"))
    for each in (workspace, undisturbed):
        each.finish(TEACHER)
    assert int(re.search(r"resum\w+ .*?epoch (\d+)", log.read_text())[1]) >= 5
    for path in (TEACHER, "results/tiny/teachers/big.csv"):
        assert (workspace.folder / path).read_bytes() == (undisturbed.folder / path).read_bytes(), path
    assert not list((workspace.folder / TEACHER).parent.glob("*.pt"))
