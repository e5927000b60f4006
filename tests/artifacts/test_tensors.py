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
        {"backbone": None},
        {"activation": "gelu"},
        {"activation": None},
    ],
)
def test_networks_differ_by_their_weights_and_by_what_the_weights_belong_to(change):
    changed = {key: value for key, value in {**NETWORK, **change}.items() if value is not None}
    assert network_digest(changed) != network_digest(NETWORK)


def test_metadata_that_change_no_output_are_no_part_of_a_networks_digest():
    reordered = dict(reversed({**NETWORK, "backbone": dict(reversed(NETWORK["backbone"].items()))}.items()))
    assert network_digest(reordered) == network_digest(NETWORK)
    assert network_digest({**NETWORK, "method": "moco", "provenance": {}, "more": 1}) == network_digest(NETWORK)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "x.safetensors"


def test_tensors_and_metadata_come_back_as_they_were_written(path):
    square = torch.nn.Parameter(torch.randn(4, 4))
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
    write_tensors(path, tensors, METADATA)
    found, metadata = read_tensors(path)
    for reader in (found, safetensors.torch.load_file(path)):
        assert reader.keys() == tensors.keys()
        for name, tensor in tensors.items():
            assert reader[name].dtype == tensor.dtype
            torch.testing.assert_close(reader[name], tensor.detach(), rtol=0, atol=0, equal_nan=True)
    assert metadata == read_metadata(path) == {**METADATA, "digest": digest_tensors(tensors)}


@pytest.mark.parametrize("read", [read_tensors, read_metadata])
def test_files_of_another_kind_are_refused(path, read):
    assert refused(read, path)
    assert refused(read, path.parent)  # a folder
    path.write_text("not even safetensors")
    assert refused(read, path)
    safetensors.torch.save_file(TENSORS, path)
    assert refused(read, path)
    for header in ("", "{", "[]", '"digest"', "{}"):
        safetensors.torch.save_file(TENSORS, path, metadata={"bingo": header})
        assert "metadata" in refused(read, path)


def test_no_cut_or_flipped_bit_gives_other_tensors(path):
    write_tensors(path, TENSORS, METADATA)
    whole = path.read_bytes()
    for length in [*range(0, len(whole), 3), len(whole) - 1]:
        path.write_bytes(whole[:length])
        assert refused(read_tensors, path), length
        assert refused(read_metadata, path), length
    header = 8 + int.from_bytes(whole[:8], "little")
    for place in [*range(0, header, 3), *range(header, len(whole))]:
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << place % 8]) + whole[place + 1 :])
        if refused(read_tensors, path) is None:
            assert place < header
            assert digest_tensors(read_tensors(path)[0]) == digest_tensors(TENSORS), place
