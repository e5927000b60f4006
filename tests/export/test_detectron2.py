import pickle
import pickletools

import numpy as np
import pytest

from bingo.errors import BingoError
from bingo.export.detectron2 import export_detectron2

# detectron2/modeling/backbone/resnet.py: blocks of each stage, convolutions of a block, stages whose first block
# changes the number of channels.
STRUCTURE = {
    "resnet10": ([1, 1, 1, 1], 2, {3, 4, 5}),
    "resnet18": ([2, 2, 2, 2], 2, {3, 4, 5}),
    "resnet50": ([3, 4, 6, 3], 3, {2, 3, 4, 5}),
}


def expected_names(architecture):
    blocks, convolutions, changing = STRUCTURE[architecture]
    layers = ["stem.conv1"]
    for stage, count in enumerate(blocks, start=2):
        for block in range(count):
            layers += [f"res{stage}.{block}.conv{n + 1}" for n in range(convolutions)]
            if block == 0 and stage in changing:
                layers.append(f"res{stage}.0.shortcut")
    norm = ["weight", "bias", "running_mean", "running_var", "num_batches_tracked"]
    return {f"{layer}.{entry}" for layer in layers for entry in ["weight", *(f"norm.{name}" for name in norm)]}


def exported(path, tmp_path):
    output = tmp_path / "folder" / "detectron2.pkl"
    export_detectron2(path, output)
    with output.open("rb") as file:
        return pickle.load(file, encoding="latin1")  # as detectron2 does


@pytest.mark.parametrize("architecture", STRUCTURE)
def test_names_are_those_of_detectron2s_resnet(architecture, teacher, tmp_path):
    _, path = teacher(architecture=architecture, width=1 / 16)  # whose head is left out
    content = exported(path, tmp_path)
    assert set(content) == {"model", "__author__", "matching_heuristics"}
    assert content["__author__"] == "bingo"
    assert content["matching_heuristics"] is True
    assert set(content["model"]) == expected_names(architecture)


def test_values_are_the_backbones(student, tmp_path):
    network, path = student(architecture="resnet50", width=1 / 16)
    model = exported(path, tmp_path)["model"]
    block = network.layer2[0]
    for name, tensor in {
        "stem.conv1.weight": network.conv1.weight,
        "stem.conv1.norm.running_var": network.bn1.running_var,
        "res2.0.shortcut.weight": network.layer1[0].downsample[0].weight,
        "res3.0.conv2.weight": block.conv2.weight,
        "res3.0.conv3.norm.bias": block.bn3.bias,
        "res3.0.shortcut.norm.running_mean": block.downsample[1].running_mean,
        "res5.2.conv3.norm.num_batches_tracked": network.layer4[2].bn3.num_batches_tracked,
    }.items():
        assert model[name].dtype == tensor.numpy().dtype
        assert np.array_equal(model[name], tensor.numpy())
    values = sorted(value.tobytes() for value in model.values())
    assert values == sorted(value.contiguous().numpy().tobytes() for value in network.state_dict().values())
    assert all(isinstance(value, np.ndarray) and value.flags.writeable for value in model.values())


def test_the_pickle_names_no_module_that_an_older_numpy_lacks(student, tmp_path):
    _, path = student(architecture="resnet10", width=1 / 16)
    export_detectron2(path, tmp_path / "detectron2.pkl")
    strings, named = [], set()
    for opcode, argument, _ in pickletools.genops((tmp_path / "detectron2.pkl").read_bytes()):
        if "UNICODE" in opcode.name:
            strings.append(argument)
        elif opcode.name == "STACK_GLOBAL":
            named.add(tuple(strings[-2:]))
        assert opcode.name not in {"GLOBAL", "NEXT_BUFFER"}
    assert named == {("numpy", "ndarray"), ("builtins", "bytearray")}


@pytest.mark.parametrize(
    ("spec", "named"),
    [
        ({"architecture": "mobilenet_v3_large"}, "mobilenet_v3_large"),
        ({"architecture": "timm/resnet10t"}, "timm/resnet10t"),
        ({"architecture": "resnet10", "width": 1 / 16, "stem": "small"}, "stem: small"),
    ],
)
def test_other_networks_are_refused(spec, named, student, tmp_path):
    _, path = student(**spec)
    with pytest.raises(BingoError, match=f"^{path}: .*{named}"):
        export_detectron2(path, tmp_path / "detectron2.pkl")
    assert not (tmp_path / "detectron2.pkl").exists()
