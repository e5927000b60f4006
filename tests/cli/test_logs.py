"""Progress lines of a command, and its end with the Snakemake that started it."""

import logging
import os
import signal
import subprocess
import sys

import pytest

from bingo.cli.logs import start
from bingo.errors import BingoError


@pytest.fixture
def begin(monkeypatch):
    """Start as a command does, in a process without the handlers that pytest has installed."""
    root = logging.getLogger()
    level = root.level

    def run(log):
        monkeypatch.setattr(root, "handlers", [])
        start(log)

    yield run
    for handler in root.handlers:
        handler.close()
    root.setLevel(level)


def test_a_log_starts_empty_and_only_warnings_reach_stderr_beside_it(begin, tmp_path, capsys):
    path = tmp_path / "logs" / "deep" / "run.log"
    path.parent.mkdir(parents=True)
    path.write_text("of an earlier run\n")
    begin(path)
    logging.getLogger("bingo").info("half way")
    logging.getLogger("bingo").warning("careful")
    lines = [line.split(" ", 2)[2] for line in path.read_text().splitlines()]
    assert lines == ["half way", "careful"]
    assert capsys.readouterr().err.splitlines() == ["bingo: careful"]


@pytest.mark.parametrize("name", ["file/run.log", "folder"])
def test_a_log_that_cannot_be_written_is_refused(begin, tmp_path, name):
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    with pytest.raises(BingoError, match=f"^--log: {tmp_path / name}"):
        begin(tmp_path / name)


def test_a_command_ends_with_the_snakemake_that_started_it():
    parent = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    code = "import time; from bingo.cli.logs import start; start(None); print('started', flush=True); time.sleep(60)"
    environment = {**os.environ, "BINGO_PARENT": f"{os.getpid()} {parent.pid}"}
    child = subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, text=True)
    try:
        assert child.stdout.readline() == "started\n"
        assert child.poll() is None
        parent.kill()
        parent.wait()
        assert child.wait(timeout=30) == -signal.SIGTERM
    finally:
        parent.kill()
        child.kill()
        child.communicate()
