import hashlib
import json

import pytest
import safetensors
import safetensors.torch
import torch

from bingo.artifacts.tensors import digest_tensors, network_digest, read_metadata, read_tensors, write_tensors
from tests.conftest import refused

TENSORS = {
    "weight": torch.arange(6.0).reshape(2, 3),
    "half": torch.tensor([1.0, -2.5], dtype=torch.bfloat16),
    "count": torch.tensor(7),
}
METADATA = {"method": "moco", "provenance": {"stage": "teacher", "seed": 3}}


def test_the_digest_is_the_one_that_files_already_carry():
    # Known answer: a change would make every stored network look foreign.
    tensor_bytes = bytes.fromhex("0000803f000000c0")  # 1 and -2 in little-endian float32
    expected = hashlib.sha256(b"w torch.float32 (2,);" + tensor_bytes).hexdigest()
    assert digest_tensors({"w": torch.tensor([1.0, -2.0])}) == expected


BASE = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])


@pytest.mark.parametrize(
    "other",
    [
        {"b": BASE},
        {"a": BASE.view(torch.int32)},
        {"a": BASE.reshape(3, 2)},
        {"a": BASE + torch.eye(2, 3) * 1e-6},
        {"a": BASE.flip(1)},
        {"a": BASE, "b": BASE},
        {},
    ],
    ids=["name", "dtype", "shape", "value", "order of values", "one more", "nothing"],
)
def test_the_digest_tells_apart(other):
    assert digest_tensors(other) != digest_tensors({"a": BASE})


def test_the_digest_tells_which_name_has_which_value():
    x, y = torch.zeros(3), torch.ones(3)
    assert digest_tensors({"a": x, "b": y}) != digest_tensors({"a": y, "b": x})


def test_the_digest_depends_neither_on_the_order_of_names_nor_on_memory_layout():
    images = torch.randn(2, 3, 4, 4)
    turned = {"b": BASE.T.contiguous().T, "a": images.to(memory_format=torch.channels_last).requires_grad_()}
    assert turned["b"].stride() != BASE.stride()
    assert digest_tensors(turned) == digest_tensors({"a": images, "b": BASE})


NETWORK = {
    "digest": "a" * 64,
    "backbone": {"architecture": "timm/efficientnet_b0", "stem": "imagenet", "width": 1.0},
    "activation": "relu",
    "method": "imported",
    "provenance": {"stage": "teacher", "seed": 3},
}


@pytest.mark.parametrize(
    "change",
    [
        {"digest": "b" * 64},
        # The same names and shapes, but paddings as TensorFlow has them.
        {"backbone": {**NETWORK["backbone"], "architecture": "timm/tf_efficientnet_b0"}},
        {"backbone": {**NETWORK["backbone"], "stem": "small"}},
        {"backbone": {**NETWORK["backbone"], "width": 2.0}},
        {"activation": "gelu"},
    ],
)
def test_networks_differ_by_weights_and_by_what_these_belong_to(change):
    assert network_digest({**NETWORK, **change}) != network_digest(NETWORK)


def test_what_changes_no_output_is_no_part_of_a_networks_digest():
    reordered = dict(reversed({**NETWORK, "backbone": dict(reversed(NETWORK["backbone"].items()))}.items()))
    assert network_digest(reordered) == network_digest(NETWORK)
    assert network_digest({**NETWORK, "method": "moco", "provenance": {}, "more": 1}) == network_digest(NETWORK)


def test_a_network_of_less_metadata_has_a_digest_too():
    without = {key: NETWORK[key] for key in ("digest", "backbone")}
    assert network_digest(without) != network_digest(NETWORK)
    assert network_digest({"digest": NETWORK["digest"]}) != network_digest(without)


def test_a_networks_digest_is_of_the_metadata_of_its_file(tmp_path):
    path = tmp_path / "x.safetensors"
    metadata = {key: value for key, value in NETWORK.items() if key != "digest"}
    write_tensors(path, TENSORS, metadata)
    expected = network_digest({**metadata, "digest": digest_tensors(TENSORS)})
    assert network_digest(read_metadata(path)) == network_digest(read_tensors(path)[1]) == expected


def test_tensors_come_back_as_they_were_written(tmp_path):
    square = torch.randn(4, 4)
    tensors = {
        **TENSORS,
        "transposed": square.T,
        "square": square,
        "same memory": square,
        "part of it": square[:2],
        "images": torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last),
        "flags": torch.tensor([True, False]),
        "float16": torch.tensor([0.5, 65504.0], dtype=torch.float16),
        "bytes": torch.arange(5, dtype=torch.uint8),
        "nothing": torch.empty(0, 3),
        "not finite": torch.tensor([torch.nan, torch.inf]),
    }
    write_tensors(tmp_path / "x.safetensors", tensors, METADATA)
    found, metadata = read_tensors(tmp_path / "x.safetensors")
    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert found[name].dtype == tensor.dtype
        torch.testing.assert_close(found[name], tensor, rtol=0, atol=0, equal_nan=True)
    assert metadata == {**METADATA, "digest": digest_tensors(tensors)}
    assert read_metadata(tmp_path / "x.safetensors") == metadata


def test_other_software_reads_our_tensors(tmp_path):
    write_tensors(tmp_path / "x.safetensors", TENSORS, METADATA)
    found = safetensors.torch.load_file(tmp_path / "x.safetensors")
    assert digest_tensors(found) == digest_tensors(TENSORS)


def test_writing_leaves_the_tensors_alone(tmp_path):
    parameter = torch.nn.Parameter(torch.ones(3))
    write_tensors(tmp_path / "x.safetensors", {"w": parameter}, {})
    assert parameter.requires_grad
    assert parameter.tolist() == [1, 1, 1]


@pytest.mark.parametrize("read", [read_tensors, read_metadata])
def test_missing_tensors_are_refused(tmp_path, read):
    assert refused(read, tmp_path / "x.safetensors").endswith("no such file")
    assert refused(read, tmp_path)  # a folder


@pytest.mark.parametrize("read", [read_tensors, read_metadata])
def test_foreign_safetensors_are_refused(tmp_path, read):
    path = tmp_path / "x.safetensors"
    safetensors.torch.save_file(TENSORS, path)
    assert "not written by bingo" in refused(read, path)
    path.write_text("not even safetensors")
    assert "damaged or no safetensors file" in refused(read, path)


@pytest.mark.parametrize("header", ["", "{", "[]", '"digest"', "{}"])
@pytest.mark.parametrize("read", [read_tensors, read_metadata])
def test_tensors_with_broken_metadata_are_refused(tmp_path, read, header):
    path = tmp_path / "x.safetensors"
    safetensors.torch.save_file(TENSORS, path, metadata={"bingo": header})
    assert "metadata" in refused(read, path)


def test_tensors_that_do_not_match_their_digest_are_refused(tmp_path):
    path = tmp_path / "x.safetensors"
    header = {"bingo": json.dumps({"digest": digest_tensors(TENSORS)})}
    safetensors.torch.save_file({**TENSORS, "weight": TENSORS["weight"] + 1}, path, metadata=header)
    assert "do not match their digest" in refused(read_tensors, path)


def test_tensors_cut_off_anywhere_are_refused(tmp_path):
    path = tmp_path / "x.safetensors"
    write_tensors(path, TENSORS, METADATA)
    whole = path.read_bytes()
    for length in [*range(0, len(whole), 3), len(whole) - 1]:
        path.write_bytes(whole[:length])
        assert refused(read_tensors, path), length
        assert refused(read_metadata, path), length


def test_one_flipped_bit_never_gives_other_tensors(tmp_path):
    path = tmp_path / "x.safetensors"
    write_tensors(path, TENSORS, METADATA)
    whole = path.read_bytes()
    header = 8 + int.from_bytes(whole[:8], "little")
    for i in [*range(0, header, 3), *range(header, len(whole))]:
        path.write_bytes(whole[:i] + bytes([whole[i] ^ 1 << i % 8]) + whole[i + 1 :])
        message = refused(read_tensors, path)
        if i >= header:
            assert "do not match their digest" in message, i
        elif message is None:
            assert digest_tensors(read_tensors(path)[0]) == digest_tensors(TENSORS), i
