"""SIGKILL in the middle of training: the next run goes on from the last epoch and ends with the same bytes."""

import re
import signal
import time

import psutil
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from .conftest import Workspace, tiny_study

TEACHER = "results/tiny/teachers/big.safetensors"
STUDENT = "results/tiny/students/distilled/seed-0/backbone.safetensors"
STATE = {TEACHER: "results/tiny/teachers/big.state.pt", STUDENT: "results/tiny/students/distilled/seed-0/state.pt"}
EVENTS = {
    TEACHER: "logs/tiny/tensorboard/teacher/big",
    STUDENT: "logs/tiny/tensorboard/student/distilled/seed-0",
}
LOG = {TEACHER: "logs/tiny/teacher/big.log", STUDENT: "logs/tiny/student/distilled/seed-0.log"}


def longer_study():
    study = tiny_study()
    for entry in (study["teachers"]["big"], study["students"]["distilled"]):
        entry["training"] = {**entry["training"], "epochs": 20}
    study["data"]["max_train"] = 512
    del study["students"]["alone"]
    return study


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    workspace = Workspace(tmp_path_factory.mktemp("undisturbed"))
    workspace.write(longer_study())
    result = workspace.run(STUDENT)
    assert result.returncode == 0, result.stdout
    return workspace.folder


def epochs_done(workspace, model):
    log = workspace.folder / LOG[model]
    return len(re.findall(r"epoch \d+, lr", log.read_text())) if log.exists() else 0


def wait_for_epochs(workspace, model, count):
    deadline = time.monotonic() + 120
    while epochs_done(workspace, model) < count:
        assert time.monotonic() < deadline, "training did not start"
        time.sleep(0.01)


def curves(folder):
    """From a scalar's tag to its (epoch, value) pairs, but for the speed."""
    events = EventAccumulator(str(folder)).Reload()
    tags = set(events.Tags()["scalars"]) - {"training/images_per_second"}
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in tags}


def stage_process(main, stage):
    for child in psutil.Process(main.pid).children(recursive=True):
        line = child.cmdline()
        if "bingo" in line and stage in line and "python" in line[0]:
            return child
    raise AssertionError(f"no {stage} process")


def kill_stage(main, stage):
    stage_process(main, stage).send_signal(signal.SIGKILL)
    main.communicate(timeout=60)
    assert main.returncode == 1


def kill_main(main, stage):
    orphan = stage_process(main, stage)
    main.kill()
    main.wait(timeout=60)
    orphan.wait(timeout=10)  # it ends by itself, and so do not two of them train at once


def test_training_resumes_after_sigkill_and_ends_with_the_same_bytes(workspace, undisturbed):
    workspace.write(longer_study())
    for model, stage in ((TEACHER, "teacher"), (STUDENT, "student")):
        for kill, epochs in ((kill_stage, 3), (kill_main, 2)):
            (workspace.folder / LOG[model]).unlink(missing_ok=True)  # else it shows the epochs of the run before
            main = workspace.start(STUDENT)
            wait_for_epochs(workspace, model, epochs)
            kill(main, stage)
            assert not (workspace.folder / model).exists()
            state = workspace.folder / STATE[model]
            assert state.exists() or state.with_name(f"{state.stem}.previous.pt").exists()

    result = workspace.run(STUDENT)
    assert result.returncode == 0, result.stdout
    assert int(re.search(r"resumed after epoch (\d+)", (workspace.folder / LOG[STUDENT]).read_text())[1]) >= 5
    for path in (TEACHER, STUDENT, "results/tiny/teachers/big.csv", "results/tiny/bags/knn.h5"):
        assert (workspace.folder / path).read_bytes() == (undisturbed / path).read_bytes(), path
    assert not any((workspace.folder / state).exists() for state in STATE.values())
    for path in EVENTS.values():
        found = curves(workspace.folder / path)
        assert [epoch for epoch, _ in found["knn/top1"]] == list(range(1, 21))
        assert found == curves(undisturbed / path)
