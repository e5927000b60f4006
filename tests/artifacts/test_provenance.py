import hashlib
from importlib.metadata import version

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as stn

from bingo.artifacts.provenance import digest_arrays, digest_json, provenance, require_same
from bingo.artifacts.tensors import digest_tensors
from bingo.errors import BingoError


def digest_as_tensors(arrays):
    return digest_tensors({name: torch.from_numpy(array) for name, array in arrays.items()})


of_arrays_and_tensors = pytest.mark.parametrize("digest", [digest_arrays, digest_as_tensors])


def test_provenance_holds_its_arguments_and_the_installed_packages():
    made = provenance("teacher", 3, {"lr": 0.1}, {"data": "abc"}, seed=5)
    packages = made.pop("packages")
    assert made == {"stage": "teacher", "version": 3, "settings": {"lr": 0.1}, "inputs": {"data": "abc"}, "seed": 5}
    assert packages["torch"] == version("torch")
    assert packages["bingo-distillation"] == version("bingo-distillation")


def test_the_digest_of_json_ignores_the_order_of_keys_and_nothing_else():
    assert digest_json({"a": 1, "b": [1, 2]}) == digest_json({"b": [1, 2], "a": 1})
    others = [{"a": 1, "b": [2, 1]}, {"a": 1}, {"a": "1", "b": [1, 2]}, {"a": 1.5, "b": [1, 2]}]
    assert len({digest_json(value) for value in [{"a": 1, "b": [1, 2]}, *others]}) == 5


def test_digests_are_those_that_artifacts_already_carry():
    # Known answers: a change would make every stored artifact look foreign.
    array = np.array([[1, 2]], dtype="<i8")
    assert digest_arrays({"a": array}) == hashlib.sha256(b"a <i8 (1, 2);" + array.tobytes()).hexdigest()
    assert digest_json({"b": 1, "a": None}) == hashlib.sha256(b'{"a": null, "b": 1}').hexdigest()
    one_and_minus_two = bytes.fromhex("0000803f000000c0")  # little-endian float32
    expected = hashlib.sha256(b"w torch.float32 (2,);" + one_and_minus_two).hexdigest()
    assert digest_tensors({"w": torch.tensor([1.0, -2.0])}) == expected


BASE = np.array([[1, 2, 3], [4, 5, 6]], dtype=np.float32)
VARIANTS = {
    "name": {"c": BASE, "b": -BASE},
    "names exchanged": {"a": -BASE, "b": BASE},
    "dtype": {"a": BASE.view(np.int32), "b": -BASE},
    "shape": {"a": BASE.reshape(3, 2), "b": -BASE},
    "value": {"a": np.where(BASE == 6, np.float32(6.0000005), BASE), "b": -BASE},
    "order of values": {"a": BASE[:, ::-1].copy(), "b": -BASE},
    "one more": {"a": BASE, "b": -BASE, "c": BASE},
    "one less": {"a": BASE},
}


@pytest.mark.parametrize("what", VARIANTS)
@of_arrays_and_tensors
def test_digests_differ_by(what, digest):
    assert digest(VARIANTS[what]) != digest({"a": BASE, "b": -BASE})


@of_arrays_and_tensors
@settings(max_examples=30, deadline=None)
@given(
    arrays=st.dictionaries(
        st.text("abc.", min_size=1, max_size=4),
        stn.arrays(st.sampled_from([np.float32, np.int64, np.uint8]), stn.array_shapes(min_dims=0, max_side=4)),
        max_size=5,
    ),
    random=st.randoms(),
)
def test_digests_ignore_the_order_of_names_and_the_memory_layout(digest, arrays, random):
    shuffled = list(arrays.items())
    random.shuffle(shuffled)
    assert digest({name: np.array(array, order="F") for name, array in shuffled}) == digest(arrays)


def test_an_artifact_of_another_dataset_is_refused(tmp_path):
    bags, listing = tmp_path / "bags.h5", tmp_path / "listing.h5"
    require_same(bags, "dataset", "a" * 64, "a" * 64, listing)
    with pytest.raises(BingoError, match=f"^{bags}: .*dataset.*{'a' * 12}.*{listing}.*{'b' * 12}"):
        require_same(bags, "dataset", "a" * 64, "b" * 64, listing)
