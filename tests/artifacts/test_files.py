import os
import time

import numpy as np
import pytest
import torch

from bingo.artifacts.files import atomic_write, atomic_write_checked, read_checked, write_text
from bingo.artifacts.hdf5 import checked_dataset, write_hdf5
from bingo.artifacts.tensors import write_tensors
from bingo.errors import BingoError
from tests.conftest import disk_of, refused


def write_numbers(path):
    with write_hdf5(path, {"kind": "numbers", "long": "x" * 20000}) as file:
        checked_dataset(file, "whole", np.arange(300))


# Each writes some 20 kB.
WRITERS = {
    "text.txt": lambda path: write_text(path, "ä" * 10000),
    "tensors.safetensors": lambda path: write_tensors(path, {"b": torch.arange(5000.0), "a": torch.ones(3)}, {}),
    "arrays.h5": write_numbers,
}
every_writer = pytest.mark.parametrize("name", WRITERS)


@pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt])
@pytest.mark.parametrize("old", [{}, {"x.txt": "old"}])
def test_a_block_that_raises_changes_nothing(error, old, tmp_path):
    for name, text in old.items():
        (tmp_path / name).write_text(text)

    def write_half():
        with atomic_write(tmp_path / "x.txt") as temporary:
            temporary.write_text("half")
            raise error

    with pytest.raises(error):
        write_half()
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == old


def test_the_file_appears_when_the_block_ends(tmp_path):
    path = tmp_path / "below" / "x.txt"
    with atomic_write(path) as temporary:
        temporary.write_text("whole")
        assert not path.exists()
        assert temporary.parent == path.parent  # a rename across file systems would not be atomic
    assert path.read_text() == "whole"
    assert list(path.parent.iterdir()) == [path]


def test_a_second_writer_is_refused_and_disturbs_nothing(tmp_path):
    path = tmp_path / "x.txt"
    with atomic_write(path) as temporary:
        temporary.write_text("first")
        with pytest.raises(BingoError, match=f"^{path}: "), atomic_write(path):
            pass
    assert path.read_text() == "first"
    assert list(tmp_path.iterdir()) == [path]


@every_writer
def test_a_temporary_file_of_a_killed_run_is_overwritten(tmp_path, name):
    path, clean = tmp_path / name, tmp_path / "clean" / name
    with atomic_write(path) as temporary:
        temporary.touch()
    path.unlink()
    temporary.write_bytes(b"left by a killed run " * 5000)
    WRITERS[name](path)
    WRITERS[name](clean)
    assert path.read_bytes() == clean.read_bytes()
    assert not temporary.exists()


@every_writer
def test_a_path_below_a_file_is_refused(tmp_path, name):
    (tmp_path / "file").touch()
    assert refused(WRITERS[name], tmp_path / "file" / name)


@pytest.mark.parametrize("size", [0, 700, 5000, 15000])
@every_writer
def test_a_full_disk_is_an_error_and_leaves_nothing(tmp_path, name, size):
    with disk_of(size):
        assert "File too large" in refused(WRITERS[name], tmp_path / name)
    assert list(tmp_path.iterdir()) == []


@every_writer
def test_files_have_the_rights_of_the_umask(tmp_path, name):
    before = os.umask(0o027)
    try:
        WRITERS[name](tmp_path / name)
    finally:
        os.umask(before)
    assert (tmp_path / name).stat().st_mode & 0o777 == 0o640


def test_equal_inputs_give_equal_bytes_at_any_time(tmp_path):
    for name, write in WRITERS.items():
        write(tmp_path / "first" / name)
    time.sleep(1.01 - time.time() % 1)  # into the next second, the resolution of dates in HDF5
    for name, write in WRITERS.items():
        write(tmp_path / "second" / name)
        assert (tmp_path / "first" / name).read_bytes() == (tmp_path / "second" / name).read_bytes(), name


def test_a_checked_file_is_read_unless_it_changed(tmp_path):
    path = tmp_path / "x.csv"
    with atomic_write_checked(path) as temporary:
        temporary.write_text("a,b\n1,2\n")
    assert read_checked(path) == b"a,b\n1,2\n"
    path.write_text("a,b\n1,3\n")
    assert refused(read_checked, path)
    (tmp_path / ".x.csv.sha256").unlink()
    assert read_checked(path) == b"a,b\n1,3\n"
    path.unlink()
    assert refused(read_checked, path)
