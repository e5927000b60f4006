import os
import pty
import select
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest

from bingo.progress import Progress

# Counts one item at the start and one for each line it is sent. While a bar is shown, print would write beside it.
COUNTER = """
import os, sys
from bingo.progress import Progress
with Progress(sys.argv[1], 10, "images") as progress:
    progress.advance(1, "loss 0.5")
    os.write(1, b"counted\\n")
    for line in sys.stdin:
        progress.advance(1)
        os.write(1, b"counted\\n")
"""


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still until its `now` is moved."""
    clock = SimpleNamespace(now=100.0)
    monkeypatch.setattr("bingo.progress.time", SimpleNamespace(monotonic=lambda: clock.now))
    return clock


@pytest.fixture
def lines(caplog):
    """Return the lines logged since the last call."""
    caplog.set_level("INFO", logger="bingo.progress")

    def take():
        messages = [record.getMessage() for record in caplog.records]
        caplog.clear()
        return messages

    return take


def test_a_line_holds_title_count_rate_and_time_left(clock):
    progress = Progress("bags", 5000, "images")
    assert progress.facts() == "bags: 0 of 5,000 images, 0 images/s, 0:00 left"
    clock.now += 10
    progress.advance(1200)
    # 120 a second, so 3,800 more take 31.67 s
    assert progress.facts() == "bags: 1,200 of 5,000 images, 120 images/s, 0:31 left"
    clock.now += 110
    assert progress.facts() == "bags: 1,200 of 5,000 images, 10 images/s, 6:20 left"
    # Items of an earlier run count, but not for the rate.
    progress = Progress("student", 100, "epochs", done=60)
    clock.now += 5
    progress.advance(10)
    assert progress.facts() == "student: 70 of 100 epochs, 2 epochs/s, 0:15 left"


def test_without_a_terminal_the_log_has_a_line_every_15_seconds_and_one_at_the_end(clock, lines, capfd):
    logged = []
    with Progress("bags", 40, "images") as progress:
        for second in range(40):
            clock.now += 1
            progress.advance(1, f"loss {second}")
            logged.append(lines())
    assert [second for second, found in enumerate(logged, 1) if found] == [15, 30]
    assert logged[14] == ["bags: 15 of 40 images, 1 images/s, 0:25 left, loss 14"]
    assert lines() == ["bags: 40 of 40 images, 1 images/s, 0:00 left"]
    assert capfd.readouterr() == ("", "")  # no bar


def test_work_that_fails_logs_no_last_line(clock, lines):
    with pytest.raises(ZeroDivisionError), Progress("bags", 40, "images"):
        raise ZeroDivisionError
    assert lines() == []


@pytest.fixture
def terminal():
    """A pseudo-terminal: `start` a process whose stderr it is, and see what it `shows`."""
    master, slave = pty.openpty()
    processes = []

    def start(title):
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": slave, "text": True}
        environment = {**os.environ, "TERM": "xterm"}
        process = subprocess.Popen([sys.executable, "-c", COUNTER, title], env=environment, **pipes)
        processes.append(process)
        assert process.stdout.readline() == "counted\n"
        return process

    def count(process):
        process.stdin.write("\n")
        process.stdin.flush()
        assert process.stdout.readline() == "counted\n"

    def shows(until=None):
        """Return what was written; wait for ``until`` if given."""
        text, patience = "", time.monotonic() + 20
        while time.monotonic() < patience:
            if select.select([master], [], [], 0.2 if until else 0)[0]:
                text += os.read(master, 65536).decode()
            elif until is None:
                break
            if until is not None and until in text:
                break
        return text

    yield SimpleNamespace(start=start, count=count, shows=shows)
    for process in processes:
        process.kill()
        process.communicate()
    os.close(master)
    os.close(slave)


def test_a_terminal_shows_a_bar_and_gets_it_taken_away(terminal):
    process = terminal.start("teacher")
    text = terminal.shows(until="10%")
    assert "teacher" in text
    assert "loss 0.5" in text
    terminal.count(process)
    assert "20%" in terminal.shows(until="20%")
    process.communicate()
    assert process.returncode == 0
    assert terminal.shows().endswith("\x1b[2K")  # the line is erased


@pytest.mark.slow
@pytest.mark.parametrize("killed", [False, True])
def test_of_two_processes_on_a_terminal_one_shows_a_bar_at_a_time(terminal, killed):
    first = terminal.start("teacher")
    assert "10%" in terminal.shows(until="10%")
    second = terminal.start("student")
    terminal.count(second)
    terminal.count(first)
    assert "student" not in terminal.shows(until="20%")
    if killed:
        first.kill()
    first.communicate()
    terminal.shows()
    terminal.count(second)
    text = terminal.shows(until="30%")
    assert "student" in text
    assert "teacher" not in text
