import fcntl
import logging
import threading
import zipfile

import pytest
import torch
from torch import nn

from bingo.training.state import TrainingPosition, TrainingState

CPU = torch.device("cpu")
ROWS = [{"epoch": 1, "lr": 0.1, "loss": 2.5}, {"epoch": 2, "lr": 0.05, "loss": 1 / 3}]


def trained(seed):
    torch.manual_seed(seed)
    module = nn.Sequential(nn.Linear(6, 6), nn.BatchNorm1d(6))
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1, momentum=0.9)
    module(torch.randn(8, 6)).pow(3).sum().backward()
    optimizer.step()
    return module, optimizer


def tensors(module, optimizer):
    momenta = [value["momentum_buffer"] for value in optimizer.state_dict()["state"].values()]
    return [tensor.clone() for tensor in [*module.state_dict().values(), *momenta]]


def equal(first, second):
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.fixture
def state(tmp_path):
    state = TrainingState(tmp_path / "folder" / "state.pt", "identity")
    state.save(*trained(0), TrainingPosition(list(ROWS)))
    return state


def test_a_state_restores_module_optimizer_and_rows(state):
    module, optimizer = trained(1)
    assert state.restore(module, optimizer, CPU).rows == ROWS
    assert equal(tensors(module, optimizer), tensors(*trained(0)))


def test_a_state_of_another_identity_is_ignored_with_a_warning(state, caplog):
    module, optimizer = trained(1)
    assert TrainingState(state.path, "other").restore(module, optimizer, CPU).rows == []
    assert equal(tensors(module, optimizer), tensors(*trained(1)))
    assert str(state.path) in caplog.text


def assert_ignored(state, caplog):
    module, optimizer = trained(1)
    caplog.clear()
    assert state.restore(module, optimizer, CPU).rows == []
    assert equal(tensors(module, optimizer), tensors(*trained(1)))
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert record.getMessage().startswith(f"{state.path}: ")
    assert "\n" not in record.getMessage()


@pytest.mark.parametrize(
    "damage",
    [
        lambda _: b"",
        lambda content: content[: len(content) // 2],
        lambda content: content[:-1],
        lambda _: b"text\n" * 50,
        lambda _: b"\x80\x02}q\x00.",
        lambda _: b"PK\x03\x04" + bytes(500),
    ],
    ids=["empty", "half", "a byte less", "text", "a pickle", "no archive"],
)
def test_a_damaged_state_is_ignored_with_a_warning(damage, state, caplog):
    state.path.write_bytes(damage(state.path.read_bytes()))
    assert_ignored(state, caplog)


def test_a_state_of_another_network_is_ignored_with_a_warning(state, caplog):
    module = nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5))
    assert state.restore(module, torch.optim.SGD(module.parameters(), lr=0.1), CPU).rows == []
    assert str(state.path) in caplog.text


def test_a_flipped_byte_in_any_record_is_noticed(state, caplog):
    # torch.load alone checks no checksum: it would go on from wrong weights.
    content = state.path.read_bytes()
    with zipfile.ZipFile(state.path) as archive:
        records = [archive.read(name) for name in archive.namelist()]
    positions = {content.index(record) + len(record) // 2 for record in records}
    assert len(positions) >= len(tensors(*trained(0)))
    for position in positions:
        damaged = bytearray(content)
        damaged[position] ^= 0x10
        state.path.write_bytes(damaged)
        assert_ignored(state, caplog)


def test_a_damaged_state_gives_way_to_the_one_before_it(state, caplog):
    state.save(*trained(2), TrainingPosition([*ROWS, *ROWS], 3))
    state.path.write_bytes(state.path.read_bytes()[:-100])
    module, optimizer = trained(1)
    assert state.restore(module, optimizer, CPU).rows == ROWS
    assert equal(tensors(module, optimizer), tensors(*trained(0)))
    assert str(state.path) in caplog.text
    # A kill while the next one is written finds that before it still there.
    state.save(module, optimizer, TrainingPosition([*ROWS, *ROWS]))
    state.previous.replace(state.path)
    assert state.restore(*trained(1), CPU).rows == ROWS


def test_a_kill_between_two_renames_leaves_the_state_before(state, caplog):
    state.path.rename(state.previous)
    module, optimizer = trained(1)
    assert state.restore(module, optimizer, CPU).rows == ROWS
    assert not caplog.records


def test_position_and_means_within_an_epoch_are_kept(state):
    before, after = TrainingPosition(list(ROWS), 2), TrainingPosition()
    before.means.add({"loss": torch.tensor(3.0)})
    before.means.add({"loss": torch.tensor(1.0)})
    state.save(*trained(0), before)
    after = state.restore(*trained(1), CPU)
    after.means.add({"loss": torch.tensor(5.0)})
    assert (after.rows, after.step, after.means.read()) == (ROWS, 2, {"loss": 3.0})
    assert after.means.first_bad_step() is None


def test_who_waited_holds_a_lock_that_a_third_sees(state):
    third_may_enter, waits = [], threading.Event()

    class Waiting(logging.Handler):
        def emit(self, record):
            assert str(state.path) in record.getMessage()
            waits.set()

    def second():
        lock = state.path.parent / ".state.pt.lock"
        with TrainingState(state.path, "identity").exclusively(), lock.open("w") as third:
            try:
                fcntl.flock(third, fcntl.LOCK_EX | fcntl.LOCK_NB)
                third_may_enter.append(True)
            except BlockingIOError:
                third_may_enter.append(False)

    handler, logger = Waiting(), logging.getLogger("bingo.training.state")
    logger.addHandler(handler)
    thread = threading.Thread(target=second, daemon=True)
    with state.exclusively():
        thread.start()
        assert waits.wait(30)
        state.discard()
    thread.join(30)
    logger.removeHandler(handler)
    assert third_may_enter == [False]


def test_discard_removes_the_files_and_may_be_repeated(state):
    state.save(*trained(1), TrainingPosition())
    assert state.previous.exists()
    for _ in range(2):
        state.discard()
        assert not list(state.path.parent.iterdir())
