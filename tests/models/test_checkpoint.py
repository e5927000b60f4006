import json

import pytest
import safetensors.torch
import torch
from torch import nn

from bingo.artifacts.tensors import read_tensors, write_tensors
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


def require_frozen(*networks):
    for network in networks:
        assert not any(module.training for module in network.modules())
        assert not any(parameter.requires_grad for parameter in network.parameters())


@torch.inference_mode()
@pytest.mark.parametrize("which", ["teacher_path", "student_path"])
def test_a_backbone_loads_from_a_teacher_or_a_student_with_equal_features(which, networks, request):
    images = torch.randn(3, 3, 16, 16)
    backbone, metadata = read_backbone(request.getfixturevalue(which), CPU)
    assert torch.equal(backbone(images), networks[0](images))
    assert metadata["backbone"] == SPEC.model_dump()
    require_frozen(backbone)


@pytest.mark.parametrize(
    "damage",
    [
        lambda path, _: path.unlink(),
        lambda path, content: path.write_bytes(content[:9]),
        lambda path, content: path.write_bytes(content[:-1]),
        lambda path, _: safetensors.torch.save_file({"weight": torch.ones(2)}, path, {"format": "pt"}),
        lambda path, _: torch.save({"weight": torch.ones(2)}, path),
    ],
    ids=["missing", "header cut off", "cut off", "of another program", "of another format"],
)
@pytest.mark.parametrize("load", [load_teacher, read_backbone])
def test_a_file_that_is_not_whole_or_not_bingos_is_refused(load, damage, teacher_path):
    damage(teacher_path, teacher_path.read_bytes())
    refusal(load, teacher_path)


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
    require_frozen(teacher.backbone, teacher.head)


def test_a_teachers_digest_tells_the_activation_of_its_head(networks, tmp_path):
    path, digests = tmp_path / "teacher.safetensors", []
    for activation in ("relu", "gelu", "relu"):
        write_teacher(path, SPEC, *(network.state_dict() for network in networks), {"method": "imported"}, activation)
        digests.append(load_teacher(path, CPU).digest)
    assert digests[0] == digests[2] != digests[1]
    assert read_tensors(path)[1]["digest"] not in digests


@pytest.mark.parametrize(
    ("head", "activation"),
    [
        ({"0.weight": torch.ones(2, 2, 2)}, "relu"),
        ({"0.weight": torch.ones(4, 8), "2.weight": torch.ones(2, 4)}, "swish"),
    ],
)
def test_a_head_of_an_unknown_form_is_refused(head, activation, networks, tmp_path):
    path = tmp_path / "teacher.safetensors"
    write_teacher(path, SPEC, networks[0].state_dict(), head, {"method": "imported"}, activation)
    refusal(load_teacher, path)


OTHER = Backbone(architecture="resnet18", stem="small", width=1 / 64).model_dump()


@pytest.mark.parametrize(
    ("parts", "extra", "metadata", "load"),
    [
        ("head", {}, METADATA, read_backbone),
        ("head", {}, METADATA, load_teacher),
        ("backbone", {}, METADATA, load_teacher),  # as a student's file has them
        ("backbone.", {"queue": torch.ones(2)}, METADATA, load_teacher),
        ("backbone. head.", {}, {**METADATA, "backbone": OTHER}, load_teacher),
        ("backbone. head.", {}, {**METADATA, "backbone": OTHER}, read_backbone),
        ("backbone", {}, {}, read_backbone),
    ],
)
def test_weights_that_are_not_those_of_the_named_network_are_refused(parts, extra, metadata, load, networks, tmp_path):
    path, tensors = tmp_path / "weights.safetensors", dict(extra)
    for part in parts.split():
        prefix = part if part.endswith(".") else ""
        network = networks[0] if part.startswith("backbone") else networks[1]
        tensors |= {prefix + name: value for name, value in network.state_dict().items()}
    write_tensors(path, tensors, metadata)
    assert len(refusal(load, path)) < 400 + len(str(path))
