import hashlib
import json
import os
import time
from importlib.metadata import version

import h5py
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as stn

from bingo.artifacts.files import atomic_write, atomic_write_checked, read_checked, write_text
from bingo.artifacts.hdf5 import checked_dataset, read_hdf5, write_hdf5
from bingo.artifacts.provenance import digest_arrays, digest_json, provenance, require_same
from bingo.artifacts.tensors import write_tensors
from bingo.errors import BingoError
from tests.conftest import disk_of, refused


def write_numbers(path, attributes=None):
    """Write an HDF5 artifact of several chunks, an attribute as text and one as JSON."""
    with write_hdf5(path, {"kind": "numbers", "layer": "pooled", "facts": [1, 2], **(attributes or {})}) as file:
        checked_dataset(file, "whole", np.arange(300))
        checked_dataset(file, "half", np.arange(200, dtype=np.float16).reshape(100, 2), chunks=(40, 2))


def read_numbers(path):
    with read_hdf5(path, "numbers") as file:
        return file["whole"][:].tolist(), file["half"][:].tolist()


# Each writes some 20 kB to a path.
WRITERS = {
    "text.txt": lambda path: write_text(path, "ä" * 10000),
    "tensors.safetensors": lambda path: write_tensors(
        path, {"b": torch.arange(5000.0), "a": torch.ones(3)}, {"seed": 1}
    ),
    "arrays.h5": lambda path: write_numbers(path, {"long": "x" * 20000}),
}


# ---- atomic


def write_half(path, error):
    with atomic_write(path) as temporary:
        temporary.write_text("half")
        raise error


def test_a_block_that_raises_leaves_no_file(tmp_path):
    with pytest.raises(ZeroDivisionError):
        write_half(tmp_path / "x.txt", ZeroDivisionError())
    assert list(tmp_path.iterdir()) == []


def test_a_block_that_raises_leaves_the_old_file_as_it_was(tmp_path):
    path = tmp_path / "x.txt"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt):
        write_half(path, KeyboardInterrupt())
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_nobody_sees_the_file_before_the_block_ends(tmp_path):
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
        with pytest.raises(BingoError, match=f"{path}: another process is writing it"), atomic_write(path):
            pass
        assert temporary.read_text() == "first"
    assert path.read_text() == "first"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("name", WRITERS)
def test_what_a_killed_run_left_is_overwritten(tmp_path, name):
    path, clean = tmp_path / name, tmp_path / "clean" / name
    with atomic_write(path) as temporary:
        temporary.touch()
    path.unlink()
    temporary.write_bytes(b"left by a killed run " * 5000)
    WRITERS[name](path)
    WRITERS[name](clean)
    assert path.read_bytes() == clean.read_bytes()
    assert not temporary.exists()


@pytest.mark.parametrize("name", WRITERS)
def test_what_the_file_system_refuses_is_one_line_naming_the_path(tmp_path, name):
    (tmp_path / "file").touch()
    path = tmp_path / "file" / name
    message = refused(WRITERS[name], path)
    assert "cannot be written" in message


@pytest.mark.parametrize("size", [0, 700, 5000, 15000])
@pytest.mark.parametrize("name", WRITERS)
def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path, name, size):
    path = tmp_path / name
    with disk_of(size):
        message = refused(WRITERS[name], path)
    assert "cannot be written (File too large)" in message
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", WRITERS)
def test_files_are_readable_as_the_umask_says(tmp_path, name):
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


# ---- provenance and digests


def test_provenance_says_what_was_given_and_which_packages_are_installed():
    found = provenance("teacher", 3, {"lr": 0.1}, {"data": "abc"}, seed=5)
    packages = found.pop("packages")
    assert found == {"stage": "teacher", "version": 3, "settings": {"lr": 0.1}, "inputs": {"data": "abc"}, "seed": 5}
    assert packages["torch"] == version("torch")
    assert packages["bingo-distillation"] == version("bingo-distillation")


def test_digest_of_json_ignores_the_order_of_keys_and_nothing_else():
    assert digest_json({"a": 1, "b": [1, 2]}) == digest_json({"b": [1, 2], "a": 1})
    others = [{"a": 1, "b": [2, 1]}, {"a": 1}, {"a": "1", "b": [1, 2]}, {"a": 1.5, "b": [1, 2]}]
    assert len({digest_json(value) for value in [{"a": 1, "b": [1, 2]}, *others]}) == 5


def test_digests_are_those_that_artifacts_already_carry():
    # Known answers: a change would make every stored artifact look foreign.
    array = np.array([[1, 2]], dtype="<i8")
    assert digest_arrays({"a": array}) == hashlib.sha256(b"a <i8 (1, 2);" + array.tobytes()).hexdigest()
    assert digest_json({"b": 1, "a": None}) == hashlib.sha256(b'{"a": null, "b": 1}').hexdigest()


BASE = np.array([[1, 2, 3], [4, 5, 6]], dtype=np.float32)
VARIANTS = {
    "name": {"b": BASE},
    "dtype": {"a": BASE.view(np.int32)},
    "shape": {"a": BASE.reshape(3, 2)},
    "value": {"a": np.where(BASE == 6, np.float32(6.0000005), BASE)},
    "order of values": {"a": BASE[:, ::-1]},
    "one more": {"a": BASE, "b": BASE},
    "nothing": {},
}


@pytest.mark.parametrize("what", VARIANTS)
def test_digests_tell_apart(what):
    assert digest_arrays(VARIANTS[what]) != digest_arrays({"a": BASE})


def test_digests_tell_which_name_has_which_value():
    x, y = np.zeros(3), np.ones(3)
    assert digest_arrays({"a": x, "b": y}) != digest_arrays({"a": y, "b": x})


@settings(max_examples=40, deadline=None)
@given(
    st.dictionaries(
        st.text("abc.", min_size=1, max_size=4),
        stn.arrays(st.sampled_from([np.float32, np.int64, np.uint8]), stn.array_shapes(min_dims=0, max_side=4)),
        max_size=5,
    ),
    st.randoms(),
)
def test_digests_depend_neither_on_the_order_of_names_nor_on_memory_layout(arrays, random):
    shuffled = list(arrays.items())
    random.shuffle(shuffled)
    layout = {name: np.asfortranarray(array) for name, array in shuffled}
    assert digest_arrays(layout) == digest_arrays(arrays)


# ---- HDF5


def test_arrays_and_attributes_come_back_as_they_were_written(tmp_path):
    path = tmp_path / "x.h5"
    attributes = {"kind": "numbers", "text": "ä", "count": 3, "share": 0.5, "facts": {"b": [1, None], "a": "x"}}
    arrays = {
        "whole": np.arange(6).reshape(2, 3),
        "half": np.linspace(0, 1, 5, dtype=np.float16),
        "nothing": np.empty(0, dtype=np.int64),
    }
    with write_hdf5(path, attributes) as file:
        for name, array in arrays.items():
            checked_dataset(file, name, array)
    with read_hdf5(path, "numbers") as file:
        assert {name: file.attrs[name] for name in ("text", "count", "share")} == {
            "text": "ä",
            "count": 3,
            "share": 0.5,
        }
        assert json.loads(file.attrs["facts"]) == attributes["facts"]
        assert file.keys() == arrays.keys()
        for name, array in arrays.items():
            assert file[name].dtype == array.dtype
            np.testing.assert_array_equal(file[name][:], array)


def test_a_block_that_raises_leaves_no_hdf5_file(tmp_path):
    def write(path):
        with write_hdf5(path, {"kind": "numbers"}) as file:
            file["a"] = 1
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write(tmp_path / "x.h5")
    assert list(tmp_path.iterdir()) == []


def test_hdf5_of_another_kind_is_refused(tmp_path):
    path = tmp_path / "x.h5"
    write_numbers(path, {"kind": "bags"})
    assert refused(read_numbers, path) == f"{path}: holds bags, but numbers is needed here"
    with h5py.File(path, "w") as file:
        file["whole"] = 1
    assert "something unknown" in refused(read_numbers, path)


def test_missing_hdf5_and_other_files_are_refused(tmp_path):
    assert refused(read_numbers, tmp_path / "x.h5").endswith("no such file")
    (tmp_path / "x.h5").write_text("no HDF5")
    assert refused(read_numbers, tmp_path / "x.h5")
    assert refused(read_numbers, tmp_path)


def test_hdf5_without_the_dataset_that_is_read_is_refused(tmp_path):
    path = tmp_path / "x.h5"
    with write_hdf5(path, {"kind": "numbers", "facts": "{"}) as file:
        checked_dataset(file, "whole", np.arange(3))
    assert "half" in refused(read_numbers, path)

    def read_facts(path):
        with read_hdf5(path, "numbers") as file:
            json.loads(file.attrs["facts"])

    assert refused(read_facts, path)


@pytest.mark.parametrize("error", [BingoError("its own line"), ZeroDivisionError("a bug"), AssertionError("a bug")])
def test_other_errors_pass_through_an_open_hdf5_file(tmp_path, error):
    write_numbers(tmp_path / "x.h5")
    with pytest.raises(type(error), match=str(error)), read_hdf5(tmp_path / "x.h5", "numbers"):
        raise error


def test_hdf5_cut_off_anywhere_is_refused(tmp_path):
    path = tmp_path / "x.h5"
    write_numbers(path)
    whole = path.read_bytes()
    for length in [*range(0, len(whole), 61), len(whole) - 1]:
        path.write_bytes(whole[:length])
        assert refused(read_numbers, path), length


def test_a_flipped_bit_in_any_chunk_of_data_is_refused(tmp_path):
    path = tmp_path / "x.h5"
    write_numbers(path)
    whole = path.read_bytes()
    with h5py.File(path) as file:
        ids = [file[name].id for name in ("whole", "half")]
        chunks = [dataset.get_chunk_info(i) for dataset in ids for i in range(dataset.get_num_chunks())]
    assert len(chunks) >= 4
    for chunk in chunks:
        for i in range(chunk.byte_offset, chunk.byte_offset + chunk.size, 37):
            path.write_bytes(whole[:i] + bytes([whole[i] ^ 1 << i % 8]) + whole[i + 1 :])
            assert refused(read_numbers, path), i


def test_one_flipped_bit_never_gives_other_arrays(tmp_path):
    path = tmp_path / "x.h5"
    write_numbers(path)
    whole, numbers = path.read_bytes(), read_numbers(path)
    refusals = 0
    for i in range(0, len(whole), 31):
        path.write_bytes(whole[:i] + bytes([whole[i] ^ 1 << i % 8]) + whole[i + 1 :])
        if refused(read_numbers, path) is None:
            assert read_numbers(path) == numbers, i
        else:
            refusals += 1
    assert refusals > 100


def test_an_artifact_of_something_else_is_refused(tmp_path):
    bags, listing = tmp_path / "bags.h5", tmp_path / "listing.h5"
    require_same(bags, "dataset", "a" * 64, "a" * 64, listing)

    def check(path):
        require_same(path, "dataset", "a" * 64, "b" * 64, listing)

    message = refused(check, bags)
    assert "another dataset (aaaaaaaaaaaa)" in message
    assert f"{listing} (bbbbbbbbbbbb)" in message


# ---- what HDF5 has no checksum for


def test_zeros_anywhere_in_a_file_are_refused(tmp_path):
    path = tmp_path / "x.h5"
    write_numbers(path)
    whole = path.read_bytes()
    for start in range(0, len(whole), 97):
        for length in (40, 700, len(whole)):
            damaged = whole[:start] + bytes(min(length, len(whole) - start)) + whole[start + length :]
            if damaged != whole:
                path.write_bytes(damaged)
                assert refused(read_numbers, path), (start, length)


def test_a_chunk_of_nothing_but_zeros_is_refused(tmp_path):
    path = tmp_path / "x.h5"
    write_numbers(path)
    with h5py.File(path) as file:
        chunks = [file[name].id.get_chunk_info(0) for name in ("whole", "half")]
    whole = path.read_bytes()
    for chunk in chunks:
        end = chunk.byte_offset + chunk.size
        path.write_bytes(whole[: chunk.byte_offset] + bytes(chunk.size) + whole[end:])
        assert "damaged" in refused(read_numbers, path)


def test_what_another_program_changed_is_read(tmp_path):
    path = tmp_path / "x.h5"
    write_numbers(path)
    with h5py.File(path, "r+") as file:
        file.attrs["layer"] = "another one" * 500
    with read_hdf5(path, "numbers") as file:
        assert file.attrs["layer"] == "another one" * 500


# ---- read_checked


def test_a_checked_file_is_read_unless_it_changed(tmp_path):
    path = tmp_path / "x.csv"
    with atomic_write_checked(path) as temporary:
        temporary.write_text("a,b\n1,2\n")
    assert read_checked(path) == b"a,b\n1,2\n"
    path.write_text("a,b\n1,3\n")
    assert "not what was written there" in refused(read_checked, path)
    (tmp_path / ".x.csv.sha256").unlink()
    assert read_checked(path) == b"a,b\n1,3\n"
    path.unlink()
    assert "No such file" in refused(read_checked, path)
