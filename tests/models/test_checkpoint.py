import json
import struct

import pytest
import safetensors.torch
import torch
import torchvision
from torch import nn
from torchvision.models.resnet import BasicBlock

from bingo.artifacts.tensors import network_digest, read_tensors, write_tensors
from bingo.errors import BingoError
from bingo.models.backbone import build_backbone
from bingo.models.checkpoint import load_teacher, read_backbone, write_teacher
from bingo.models.head import mlp_head
from bingo.study.sections import Backbone

SPEC = Backbone(architecture="resnet10", stem="small", width=1 / 64)
METADATA = {"backbone": SPEC.model_dump(), "method": "moco", "provenance": {"stage": "teacher"}}
CPU = torch.device("cpu")


@pytest.fixture
def networks():
    torch.manual_seed(0)
    backbone, head = build_backbone(SPEC), mlp_head(8, [6, 4])
    backbone(torch.randn(8, 3, 16, 16))  # moves batch-norm's statistics
    return backbone.eval(), head.eval()


@pytest.fixture
def teacher_path(networks, tmp_path):
    parts = zip(("backbone", "head"), networks, strict=True)
    tensors = {f"{part}.{name}": value for part, network in parts for name, value in network.state_dict().items()}
    write_tensors(tmp_path / "teacher.safetensors", tensors, METADATA)
    return tmp_path / "teacher.safetensors"


@pytest.fixture
def student_path(networks, tmp_path):
    write_tensors(tmp_path / "backbone.safetensors", networks[0].state_dict(), METADATA)
    return tmp_path / "backbone.safetensors"


def refusal(function, path):
    with pytest.raises(BingoError) as caught:
        function(path, CPU)
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    return message


def features_and_projection(teacher, images):
    features = teacher.backbone(images)
    return features, teacher.head(features)


@torch.inference_mode()
def test_a_teacher_loads_with_equal_features_and_projections(networks, teacher_path):
    images = torch.randn(3, 3, 16, 16)
    teacher = load_teacher(teacher_path, CPU)
    expected = networks[0](images)
    features, projection = features_and_projection(teacher, images)
    assert torch.equal(features, expected)
    assert torch.equal(projection, networks[1](expected))
    assert teacher.dim == 4
    assert teacher.digest == network_digest(read_tensors(teacher_path)[1])
    assert teacher.metadata["method"] == "moco"


@torch.inference_mode()
@pytest.mark.parametrize("which", ["teacher_path", "student_path"])
def test_a_backbone_loads_from_a_teacher_or_a_student_with_equal_features(which, networks, request):
    images = torch.randn(3, 3, 16, 16)
    backbone, metadata = read_backbone(request.getfixturevalue(which), CPU)
    assert torch.equal(backbone(images), networks[0](images))
    assert metadata["backbone"] == SPEC.model_dump()


def test_loaded_networks_are_frozen(teacher_path):
    teacher = load_teacher(teacher_path, CPU)
    for network in (teacher.backbone, teacher.head, read_backbone(teacher_path, CPU)[0]):
        assert not any(module.training for module in network.modules())
        assert not any(parameter.requires_grad for parameter in network.parameters())


def test_torchvisions_own_network_loads_a_students_backbone(tmp_path):
    spec = Backbone(architecture="resnet10")
    path = tmp_path / "backbone.safetensors"
    write_tensors(path, build_backbone(spec).state_dict(), {"backbone": spec.model_dump()})
    plain = torchvision.models.ResNet(BasicBlock, [1, 1, 1, 1])
    missing, unexpected = plain.load_state_dict(safetensors.torch.load_file(path), strict=False)
    assert (missing, unexpected) == (["fc.weight", "fc.bias"], [])


@pytest.mark.parametrize("load", [load_teacher, read_backbone])
def test_a_missing_file_is_refused(load, tmp_path):
    assert "no such file" in refusal(load, tmp_path / "absent.safetensors")


@pytest.mark.parametrize("load", [load_teacher, read_backbone])
def test_a_truncated_file_is_refused(load, teacher_path):
    content = teacher_path.read_bytes()
    for length in [0, 1, 8, 9, len(content) // 2, len(content) - 1]:
        teacher_path.write_bytes(content[:length])
        assert "damaged" in refusal(load, teacher_path)


def test_no_flipped_byte_changes_a_teacher_in_silence(networks, teacher_path):
    content = teacher_path.read_bytes()
    images = torch.randn(2, 3, 16, 16)
    expected = features_and_projection(load_teacher(teacher_path, CPU), images)
    refused = 0
    header = 8 + struct.unpack("<Q", content[:8])[0]
    # Header and weights alike; in the header a flip may hit provenance, which changes no number.
    for position in [*range(0, header, 61), *range(header, len(content), 997)]:
        damaged = bytearray(content)
        damaged[position] ^= 0x15
        teacher_path.write_bytes(damaged)
        try:
            found = features_and_projection(load_teacher(teacher_path, CPU), images)
        except BingoError as error:
            assert str(teacher_path) in str(error)  # noqa: PT017
            refused += 1
        else:
            assert position < header
            assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
    assert refused > 50


@pytest.mark.parametrize(
    "damage",
    [
        lambda header: header.replace("resnet10", "resnet99"),  # names no network
        lambda header: header.replace('"small"', '"smalx"'),
        lambda header: header.replace('"width"', '"wodth"'),
        lambda header: header[:-3],  # no JSON any more
        lambda _header: json.dumps([1, 2]),
        lambda header: header.replace('"digest"', '"dagest"'),
    ],
)
@pytest.mark.parametrize("load", [load_teacher, read_backbone])
def test_a_damaged_description_is_refused(load, damage, teacher_path):
    with safetensors.safe_open(teacher_path, "pt") as file:
        header = file.metadata()["bingo"]
    tensors = safetensors.torch.load_file(teacher_path)
    safetensors.torch.save_file(tensors, teacher_path, {"bingo": damage(header)})
    refusal(load, teacher_path)


@pytest.mark.parametrize("load", [load_teacher, read_backbone])
def test_a_safetensors_file_of_another_program_is_refused(load, tmp_path):
    path = tmp_path / "foreign.safetensors"
    safetensors.torch.save_file({"weight": torch.ones(2)}, path, {"format": "pt"})
    assert "not written by bingo" in refusal(load, path)


@pytest.mark.parametrize("load", [load_teacher, read_backbone])
def test_a_file_of_another_format_is_refused(load, tmp_path):
    path = tmp_path / "weights.safetensors"
    torch.save({"weight": torch.ones(2)}, path)
    assert "no safetensors file" in refusal(load, path)


@pytest.mark.parametrize("load", [load_teacher, read_backbone])
def test_a_students_head_is_no_network(load, networks, tmp_path):
    write_tensors(tmp_path / "head.safetensors", networks[1].state_dict(), METADATA)
    refusal(load, tmp_path / "head.safetensors")


def test_a_students_backbone_is_no_teacher(student_path):
    refusal(load_teacher, student_path)


@torch.inference_mode()
def test_a_teacher_without_a_head_gives_its_features(networks, tmp_path):
    path, images = tmp_path / "teacher.safetensors", torch.randn(3, 3, 16, 16)
    write_teacher(path, SPEC, networks[0].state_dict(), {}, {"method": "imported"})
    teacher = load_teacher(path, CPU)
    assert (teacher.features, teacher.dim, len(teacher.head)) == (8, 8, 0)
    features, projection = features_and_projection(teacher, images)
    assert torch.equal(features, networks[0](images))
    assert torch.equal(projection, features)


HEADS = {
    "one layer": ([nn.Linear(8, 5)], "relu"),
    "MoCo": ([nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 5)], "relu"),
    "SwAV": ([nn.Linear(8, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 5)], "relu"),
    "three layers": ([nn.Linear(8, 9), nn.GELU(), nn.Linear(9, 7), nn.GELU(), nn.Linear(7, 5)], "gelu"),
    "no biases": (
        [nn.Linear(8, 9, bias=False), nn.BatchNorm1d(9), nn.ReLU(), nn.Linear(9, 5, bias=False)],
        "relu",
    ),
    "a batch-norm at the end": ([nn.Linear(8, 5), nn.BatchNorm1d(5, affine=False)], "relu"),
}


@torch.inference_mode()
@pytest.mark.parametrize("kind", HEADS)
def test_a_teacher_of_any_head_is_written_and_read(kind, networks, tmp_path):
    layers, activation = HEADS[kind]
    head = nn.Sequential(*layers)
    head.train()(2 * torch.randn(16, 8) + 1)  # moves batch-norm's statistics
    head.eval()
    path, images = tmp_path / "teacher.safetensors", torch.randn(3, 3, 16, 16)
    metadata = {"method": "imported", "provenance": {"stage": "teacher"}}
    write_teacher(path, SPEC, networks[0].state_dict(), head.state_dict(), metadata, activation)
    teacher = load_teacher(path, CPU)
    assert (teacher.features, teacher.dim) == (8, 5)
    features, projection = features_and_projection(teacher, images)
    assert torch.equal(features, networks[0](images))
    assert torch.equal(projection, head(features))
    assert {key: teacher.metadata[key] for key in metadata} == metadata
    assert not any(module.training for module in teacher.head.modules())
    assert not any(parameter.requires_grad for parameter in teacher.head.parameters())


def test_a_teachers_digest_tells_the_activation_of_its_head(networks, tmp_path):
    path, digests = tmp_path / "teacher.safetensors", []
    for activation in ("relu", "gelu", "relu"):
        write_teacher(path, SPEC, *(network.state_dict() for network in networks), {"method": "imported"}, activation)
        digests.append(load_teacher(path, CPU).digest)
    assert digests[0] == digests[2] != digests[1]
    assert read_tensors(path)[1]["digest"] not in digests


@pytest.mark.parametrize(
    "head",
    [
        {"0.weight": torch.ones(2, 2, 2)},
        {"0.bias": torch.ones(2)},
        {"fc.weight": torch.ones(2, 8)},
        {"0.weight": torch.ones(4, 7), "0.bias": torch.ones(4), "0.extra": torch.ones(1)},
    ],
)
def test_a_head_of_an_unknown_form_is_refused(head, networks, tmp_path):
    write_teacher(tmp_path / "teacher.safetensors", SPEC, networks[0].state_dict(), head, {"method": "imported"})
    refusal(load_teacher, tmp_path / "teacher.safetensors")


def test_an_unknown_activation_is_refused(networks, tmp_path):
    path = tmp_path / "teacher.safetensors"
    parts = [network.state_dict() for network in networks]
    write_teacher(path, SPEC, *parts, {"method": "imported"}, activation="swish")
    assert "swish" in refusal(load_teacher, path)


def test_a_name_that_belongs_to_neither_part_is_refused(networks, tmp_path):
    path = tmp_path / "teacher.safetensors"
    tensors = {f"backbone.{name}": value for name, value in networks[0].state_dict().items()}
    write_tensors(path, tensors | {"queue": torch.ones(2)}, METADATA)
    assert "'queue'" in refusal(load_teacher, path)


@pytest.mark.parametrize("load", [load_teacher, read_backbone])
def test_weights_of_another_network_than_the_one_named_are_refused_in_a_short_line(load, networks, tmp_path):
    other = Backbone(architecture="resnet18", stem="small", width=1 / 64).model_dump()
    path = tmp_path / "backbone.safetensors"
    tensors = {f"backbone.{name}": value for name, value in networks[0].state_dict().items()}
    tensors |= {f"head.{name}": value for name, value in networks[1].state_dict().items()}
    write_tensors(path, tensors, {**METADATA, "backbone": other})
    message = refusal(load, path)
    assert "do not fit" in message
    assert len(message) < 400 + len(str(path))


def test_a_file_that_names_no_network_is_refused(networks, tmp_path):
    path = tmp_path / "backbone.safetensors"
    write_tensors(path, networks[0].state_dict(), {})
    assert "which backbone" in refusal(read_backbone, path)
