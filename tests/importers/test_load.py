"""Each format, in each of its layouts: the imported network computes what the source network does."""

from collections import OrderedDict
from typing import NamedTuple

import pytest
import safetensors.torch
import timm
import torch
import torchvision
from torch import nn

from bingo.artifacts.tensors import write_tensors
from bingo.importers.formats import FORMATS
from bingo.importers.load import load_checkpoint
from bingo.models.backbone import build_backbone
from bingo.models.checkpoint import write_teacher
from bingo.models.head import head_from, mlp_head
from bingo.study.sections import Backbone
from bingo.study.teachers import CheckpointFormat

from .source_networks import DinoHead, encoder, mlp, settings, settled, small18, small50, training, under


def without_classifier(network):
    """Take the classifier off a network of torchvision or timm."""
    for name in ("fc", "classifier"):
        if hasattr(network, name):
            setattr(network, name, nn.Identity())
    return network


@torch.inference_mode()
def same(path, format, part, backbone, head=None, default=False, named=None, architecture=None):
    """Import a network, and hold its features and projections against those of the source networks."""
    found = load_checkpoint(path, named, None if default else part, architecture)
    assert (found.format, found.part) == (format, part)
    network, layers = build_backbone(found.spec), head_from(found.head, found.activation)
    network.load_state_dict(found.backbone, strict=True)
    layers.load_state_dict(found.head, strict=True)
    images = torch.randn(3, 3, 32, 32)
    features = network.eval()(images)
    outputs = layers.eval()(features)
    assert len(layers) == (0 if head is None else len(head))
    expected = backbone(images)
    # Channels-last memory rounds otherwise.
    for found_values, values in ((features, expected), (outputs, expected if head is None else head(expected))):
        torch.testing.assert_close(found_values, values, rtol=1e-5, atol=1e-5 * float(values.abs().max()))
    for tensor in (*found.backbone.values(), *found.head.values()):
        assert tensor.is_contiguous()
        assert tensor.dtype in (torch.float32, torch.int64)
    return found


def test_the_table_has_the_formats_that_a_study_may_name():
    assert sorted(format.name for format in FORMATS) == sorted(CheckpointFormat.__args__)


# MoCo version 1 has one linear layer for a head. The files of before 2020 are no zip archives.
@pytest.mark.parametrize(
    ("network", "head", "zipped"),
    [
        (lambda: settled(without_classifier(torchvision.models.resnet18())), lambda: mlp(512, 512, 16), True),
        (small18, lambda: nn.Sequential(nn.Linear(64, 16)), True),
        (small18, lambda: mlp(64, 64, 16), False),
    ],
    ids=["version 2", "version 1", "old file"],
)
def test_files_of_moco_are_imported_without_the_key_encoder(network, head, zipped, path):
    backbone, head = network(), head()
    state = under("module.encoder_q.", backbone) | under("module.encoder_q.fc.", head if len(head) > 1 else head[0])
    torch.save(training(OrderedDict(state)), path, _use_new_zipfile_serialization=zipped)
    found = same(path, "moco", "query", backbone, head, default=True)
    assert (found.activation, found.left_out) == ("relu", [])


class Part(NamedTuple):
    """A network in a file: its name here, and what is written there."""

    name: str
    backbone_prefix: str
    head_prefix: str
    width: int = 8
    norm: bool = False


QUERY, KEY, STUDENT = ((f"{name}.", f"{name}.fc.") for name in ("encoder_q", "encoder_k", "student"))
QUEUE = ("queue", "queue_ptr")
LEFT_OUT = {
    "lightly": ("criterion.memory_bank.bank", "prediction_head.layers.0.weight"),
    "solo-learn": (*QUEUE, "queue_y", "classifier.weight", "momentum_classifier.weight", "predictor.0.bias"),
}


@pytest.mark.parametrize(
    ("format", "parts"),
    [
        ("moco", [Part("query", *QUERY), Part("key", *KEY)]),
        ("bingo", [Part("student", *QUERY), Part("teacher", *KEY, 12)]),
        ("bingo", [Part("student", *QUERY), Part("teacher", *KEY, 12, norm=True)]),  # SwAV's
        # With a teacher of MoCo, SwAV and SimCLR.
        ("seed", [Part("student", *STUDENT), Part("teacher", "teacher.", "teacher.fc.", 12)]),
        ("seed", [Part("student", *STUDENT), Part("teacher", "teacher.", "teacher.projection_head.", 12, True)]),
        ("seed", [Part("student", *STUDENT), Part("teacher", "teacher.module.", "teacher.module.fc.", 12, True)]),
        (
            "disco",
            [
                Part("student", *QUERY),
                Part("student-momentum", *KEY),
                Part("teacher", "teacher_encoder_q.", "teacher_encoder_q.fc.", 12),
                Part("teacher-momentum", "teacher_encoder_k.", "teacher_encoder_k.fc.", 12),
            ],
        ),
        (
            "lightly",
            [
                Part("online", "backbone.", "projection_head.layers."),
                Part("momentum", "backbone_momentum.", "projection_head_momentum.layers.", norm=True),
            ],
        ),
        *(
            (
                "solo-learn",
                [
                    Part("online", f"{name}.", "projector."),
                    Part("momentum", f"momentum_{name}.", "momentum_projector.", norm=True),
                ],
            )
            for name in ("backbone", "encoder")
        ),
    ],
)
def test_each_network_of_a_training_file_is_imported(format, parts, path):
    needless = LEFT_OUT.get(format, QUEUE)
    if parts[1].head_prefix == "teacher.projection_head.":
        needless += ("teacher.prototypes.weight",)
    state, sources = {name: torch.randn(16, 32) for name in needless}, {}
    for part in parts:
        sources[part.name] = small18(part.width), mlp(8 * part.width, 24, 16, norm=part.norm)
        state |= under(part.backbone_prefix, sources[part.name][0]) | under(part.head_prefix, sources[part.name][1])
    torch.save(training(state if format in LEFT_OUT else under("module.", state)), path)
    for name, source in sources.items():
        found = same(path, format, name, *source, default=name == parts[0].name)
        assert set(needless) <= set(found.left_out)
        assert len(found.left_out) == len(state) - len(found.backbone) - len(found.head)


def test_both_files_of_swav_are_imported(path):
    backbone, head = small50(), mlp(128, 48, 16, norm=True)
    state = {**encoder("", backbone, head, "projection_head."), "prototypes.weight": torch.randn(30, 16)}
    torch.save(under("module.", state), path)
    found = same(path, "swav", "network", backbone, head)
    assert found.spec == Backbone(architecture="resnet50", width=4 / 64)
    assert found.left_out == ["prototypes.weight"]
    torch.save(training(under("module.", state), amp={"loss_scaler0": {"loss_scale": 1.0}}), path)
    same(path, "swav", "network", backbone, head, default=True)


@pytest.mark.slow
def test_the_width_of_swavs_resnet_50w2_is_detected(path):
    with torch.device("meta"):
        backbone, head = small50(128), nn.Sequential(nn.Linear(4096, 8192), nn.BatchNorm1d(8192))
    state = {**encoder("", backbone, head, "projection_head."), "prototypes.weight": torch.zeros(30, 16)}
    torch.save({f"module.{name}": torch.zeros(()).expand(value.shape) for name, value in state.items()}, path)
    found = load_checkpoint(path, None, None, None)
    assert found.spec == Backbone(architecture="resnet50", width=2)
    for source, imported in ((backbone, found.backbone), (head, found.head)):
        assert {name: v.shape for name, v in imported.items()} == {k: v.shape for k, v in source.state_dict().items()}


def test_discos_efficientnet_has_its_head_for_a_classifier(path):
    backbone, head = settled(timm.create_model("efficientnet_b0", num_classes=0)), mlp(1280, 24, 16)
    state = encoder("encoder_q.", backbone, head, "classifier.") | under("teacher_encoder_q.", small18(12))
    torch.save(training(under("module.", state)), path)
    assert same(path, "disco", "student", backbone, head).spec == Backbone(architecture="timm/efficientnet_b0")


@pytest.mark.parametrize("head", [None, nn.Sequential(nn.Linear(64, 128))], ids=["two queues", "one queue"])
def test_files_of_compress_are_imported(head, path):
    backbone = small18()
    state = {**backbone.state_dict(), **(under("fc.", head[0]) if head else {})}
    torch.save({"opt": settings(), "model": under("module.", state), "optimizer": {"state": {}}, "epoch": 130}, path)
    same(path, "compress", "network", backbone, head)


@pytest.mark.parametrize(("wrap", "norm", "modern"), [("module.", True, False), ("", False, True)])
@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
def test_dinos_training_file_is_imported(wrap, norm, modern, path):
    backbones, heads = (small18(12), small18(12)), (DinoHead(96, norm, modern), DinoHead(96, norm, modern))
    teacher, student = (
        {**under(f"{wrap}backbone.", backbone), **under(f"{wrap}head.", head)}
        for backbone, head in zip(backbones, heads, strict=True)
    )
    root = {"student": student, "teacher": teacher, "optimizer": {"state": {}}, "epoch": 800, "args": settings()}
    torch.save(root | {"dino_loss": {"center": torch.zeros(1, 40)}}, path)
    found = same(path, "dino", "teacher", backbones[0], heads[0].mlp, default=True)
    assert found.activation == "gelu"
    assert sum(name.startswith("teacher.head.last_layer.") for name in found.left_out) == 2
    assert "student.backbone.conv1.weight" in found.left_out
    same(path, "dino", "student", backbones[1], heads[1].mlp)
    torch.save(teacher, path)
    same(path, "dino", "network", backbones[0], heads[0].mlp)


def test_a_bare_resnet_is_torchvisions_unless_the_study_names_another_format(path):
    backbone = small18(12)
    torch.save(backbone.state_dict(), path)
    same(path, "torchvision", "network", backbone)
    for format in ("dino", "timm", "swav", "compress"):
        same(path, format, "network", backbone, named=format)


@pytest.mark.parametrize(
    ("name", "file"),
    [("resnet18", "weights.pth"), ("efficientnet_b0", "model.safetensors"), ("mobilenet_v3_large", "weights.pth")],
)
def test_files_of_torchvision_are_imported(name, file, tmp_path):
    path, network = tmp_path / file, settled(torchvision.models.get_model(name))
    if path.suffix == ".safetensors":
        safetensors.torch.save_file(network.state_dict(), path, {"format": "pt"})
    else:
        torch.save({"model": network.state_dict(), "epoch": 90, "args": settings()}, path)
    found = same(path, "torchvision", "network", without_classifier(network))
    assert found.spec == Backbone(architecture=name)
    assert all(name.startswith(("fc.", "classifier.")) for name in found.left_out)
    assert len(found.left_out) == (4 if name == "mobilenet_v3_large" else 2)


def test_timms_efficientnet_is_detected(tmp_path):
    path, network = tmp_path / "model.safetensors", settled(timm.create_model("efficientnet_b0"))
    safetensors.torch.save_file(network.state_dict(), path, {"format": "pt"})
    found = same(path, "timm", "network", without_classifier(network))
    assert found.spec == Backbone(architecture="timm/efficientnet_b0")
    assert sorted(found.left_out) == ["classifier.bias", "classifier.weight"]


@pytest.mark.parametrize(
    "name", ["mobilenetv3_small_050", "tf_efficientnet_b0", "resnet10t", "resnet18", "deit_tiny_distilled_patch16_224"]
)
def test_a_network_of_timm_that_the_study_names_is_imported(name, path):
    network = settled(timm.create_model(name))
    torch.save(network.state_dict(), path)
    network.reset_classifier(0)
    if name == "deit_tiny_distilled_patch16_224":  # of images of 224 pixels only
        found = load_checkpoint(path, None, None, f"timm/{name}")
        assert found.backbone.keys() == network.state_dict().keys()
    else:
        found = same(path, "timm", "network", network, architecture=f"timm/{name}")
    assert found.spec == Backbone(architecture=f"timm/{name}")
    assert len(found.left_out) == len(set(found.left_out)) > 0


def test_lightlys_head_without_bias_and_scale_is_imported(path):
    backbone = small18()
    children = [child for child in backbone.children() if not isinstance(child, nn.ConstantPad2d)]
    layers = [nn.Linear(64, 24, bias=False), nn.BatchNorm1d(24), nn.ReLU(), nn.Linear(24, 16, bias=False)]
    head = settled(nn.Sequential(*layers, nn.BatchNorm1d(16, affine=False)))
    state = {**under("backbone.", nn.Sequential(*children[:-1])), **under("projection_head.layers.", head)}
    assert "backbone.4.0.conv1.weight" in state
    torch.save(training(state), path)
    same(path, "lightly", "online", backbone, head)


NARROW = Backbone(architecture="resnet10", stem="small", width=1 / 8)


@pytest.mark.parametrize(("activation", "between"), [("relu", nn.ReLU), ("gelu", nn.GELU)])
def test_a_teacher_of_this_project_is_imported(activation, between, tmp_path):
    path = tmp_path / "moco.safetensors"
    backbone, head = settled(build_backbone(NARROW)), mlp(64, 24, 16, activation=between)
    write_teacher(path, NARROW, backbone.state_dict(), head.state_dict(), {"method": "moco"}, activation)
    found = same(path, "native", "network", backbone, head)
    assert (found.spec, found.activation, found.left_out) == (NARROW, activation, [])


def write_student(folder, backbone, head, **other):
    metadata = {"backbone": NARROW.model_dump(), "method": "bingo"}
    write_tensors(folder / "backbone.safetensors", backbone.state_dict(), metadata)
    write_tensors(folder / "head.safetensors", head.state_dict(), metadata | other)


@pytest.mark.parametrize("widths", [[24, 16], []])
def test_a_student_of_this_project_is_imported_with_its_head(widths, tmp_path):
    backbone, head = settled(build_backbone(NARROW)), mlp_head(64, widths)
    write_student(tmp_path, backbone, head)
    found = same(tmp_path / "backbone.safetensors", "native", "network", backbone, head if widths else None)
    assert found.spec == NARROW


def test_a_student_without_its_head_or_with_another_students_is_refused(tmp_path, refusal):
    write_student(tmp_path, build_backbone(NARROW), mlp_head(64, [16]), method="moco")
    assert "head.safetensors" in refusal(tmp_path / "backbone.safetensors")
    assert "backbone.safetensors" in refusal(tmp_path / "head.safetensors")
    (tmp_path / "head.safetensors").unlink()
    assert "head.safetensors" in refusal(tmp_path / "backbone.safetensors")


def test_a_small_stem_is_told_by_its_kernel_and_nothing_is_drawn(path):
    backbone = small18(stem=3)
    torch.save(backbone.state_dict(), path)
    before = torch.get_rng_state()
    load_checkpoint(path, None, None, None)
    assert torch.equal(torch.get_rng_state(), before)
    found = same(path, "torchvision", "network", backbone)
    assert found.spec == Backbone(architecture="resnet18", stem="small", width=1 / 8)


def test_other_types_and_layouts_of_memory_become_contiguous_float32(path):
    backbone, head = small18(), mlp(64, 24, 16)
    for network in (backbone, head):
        for value in network.state_dict().values():
            value.copy_(value.bfloat16())  # so that nothing is lost below
    state = {name: v.bfloat16() if v.is_floating_point() else v.int() for name, v in backbone.state_dict().items()}
    state["conv1.weight"] = state["conv1.weight"].to(memory_format=torch.channels_last)
    state["bn1.running_mean"] = nn.Parameter(state["bn1.running_mean"].double())
    torch.save(under("module.", {**state, **under("projection_head.", head)}), path)
    same(path, "swav", "network", backbone, head)


def test_batch_norms_counters_that_old_files_lack_are_zero(path):
    backbone, head = small18(), mlp(64, 24, 16, norm=True)
    state = encoder("module.encoder_q.", backbone, head)
    torch.save(training({name: value for name, value in state.items() if "num_batches" not in name}), path)
    found = same(path, "moco", "query", backbone, head)
    counters = [v for k, v in {**found.backbone, **found.head}.items() if k.endswith("num_batches_tracked")]
    assert len(counters) == 21
    assert all(v.dtype == torch.int64 and v.shape == () and v == 0 and v.device.type == "cpu" for v in counters)
