import json

import h5py
import numpy as np
import pytest

from bingo.artifacts.hdf5 import checked_dataset, read_hdf5, write_hdf5
from bingo.errors import BingoError
from tests.conftest import refused


def write_numbers(path, kind="numbers"):
    """Write an artifact of several chunks, an attribute as text and one as JSON; return its bytes."""
    with write_hdf5(path, {"kind": kind, "layer": "pooled", "facts": [1, 2]}) as file:
        checked_dataset(file, "whole", np.arange(300))
        checked_dataset(file, "half", np.arange(200, dtype=np.float16).reshape(100, 2), chunks=(40, 2))
    return path.read_bytes()


def read_numbers(path):
    with read_hdf5(path, "numbers") as file:
        return file["whole"][:].tolist(), file["half"][:].tolist()


def test_arrays_and_attributes_come_back_as_they_were_written(tmp_path):
    path = tmp_path / "x.h5"
    plain, facts = {"kind": "numbers", "text": "ä", "count": 3, "share": 0.5}, {"b": [1, None], "a": "x"}
    arrays = {
        "whole": np.arange(6).reshape(2, 3),
        "half": np.linspace(0, 1, 5, dtype=np.float16),
        "nothing": np.empty(0, dtype=np.int64),
    }
    with write_hdf5(path, {**plain, "facts": facts}) as file:
        for name, array in arrays.items():
            checked_dataset(file, name, array)
    with read_hdf5(path, "numbers") as file:
        assert {name: file.attrs[name] for name in plain} == plain
        assert json.loads(file.attrs["facts"]) == facts
        assert file.keys() == arrays.keys()
        for name, array in arrays.items():
            assert file[name].dtype == array.dtype
            np.testing.assert_array_equal(file[name][:], array)


def test_files_without_the_numbers_are_refused(tmp_path):
    path = tmp_path / "x.h5"
    assert refused(read_numbers, path)
    assert refused(read_numbers, tmp_path)
    path.write_text("not HDF5")
    assert refused(read_numbers, path)
    write_numbers(path, kind="bags")
    assert "numbers" in refused(read_numbers, path)
    with h5py.File(path, "w") as file:
        file["whole"] = 1
    assert "numbers" in refused(read_numbers, path)
    with write_hdf5(path, {"kind": "numbers"}) as file:
        checked_dataset(file, "whole", np.arange(3))
    assert "half" in refused(read_numbers, path)


@pytest.mark.parametrize("error", [BingoError("its own line"), ZeroDivisionError("a bug"), AssertionError("a bug")])
def test_other_errors_pass_through_an_open_file(tmp_path, error):
    write_numbers(tmp_path / "x.h5")
    with pytest.raises(type(error), match=str(error)), read_hdf5(tmp_path / "x.h5", "numbers"):
        raise error


def chunks_of(path):
    with h5py.File(path) as file:
        ids = [file[name].id for name in ("whole", "half")]
        chunks = [dataset.get_chunk_info(i) for dataset in ids for i in range(dataset.get_num_chunks())]
    assert len(chunks) >= 4
    return [range(chunk.byte_offset, chunk.byte_offset + chunk.size) for chunk in chunks]


def flipped(whole, place):
    return whole[:place] + bytes([whole[place] ^ 1 << place % 8]) + whole[place + 1 :]


@pytest.mark.parametrize("damage", ["cut", "flipped bit of data", "zeros"])
def test_damage_anywhere_is_refused(damage, tmp_path):
    path = tmp_path / "x.h5"
    whole, chunks = write_numbers(path), chunks_of(path)
    if damage == "cut":
        contents = [whole[:length] for length in [*range(0, len(whole), 61), len(whole) - 1]]
    elif damage == "zeros":
        spans = [(start, start + length) for start in range(0, len(whole), 97) for length in (40, 700, len(whole))]
        spans += [(chunk.start, chunk.stop) for chunk in chunks]
        contents = [whole[:start] + bytes(len(whole[start:stop])) + whole[stop:] for start, stop in spans]
    else:
        contents = [flipped(whole, place) for chunk in chunks for place in chunk[::37]]
    for number, content in enumerate(contents):
        path.write_bytes(content)
        assert content == whole or refused(read_numbers, path), number


def test_one_flipped_bit_never_gives_other_arrays(tmp_path):
    path = tmp_path / "x.h5"
    whole, numbers = write_numbers(path), read_numbers(path)
    refusals = 0
    for place in range(0, len(whole), 31):
        path.write_bytes(flipped(whole, place))
        if refused(read_numbers, path) is None:
            assert read_numbers(path) == numbers, place
        else:
            refusals += 1
    assert refusals > 100


def test_changes_of_another_program_are_read(tmp_path):
    path = tmp_path / "x.h5"
    write_numbers(path)
    with h5py.File(path, "r+") as file:
        file.attrs["layer"] = "another one" * 500
    with read_hdf5(path, "numbers") as file:
        assert file.attrs["layer"] == "another one" * 500
