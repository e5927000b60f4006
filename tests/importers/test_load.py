"""Each format, in each of its layouts: the imported network computes what the source network does."""

from collections import OrderedDict

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

from .source_networks import DinoHead, mlp, queue, settings, settled, small18, small50, training, under


@pytest.fixture
def path(tmp_path):
    return tmp_path / "weights.pth.tar"


def stripped(network):
    """Take the classifier off a network of torchvision or timm."""
    for name in ("fc", "classifier"):
        if hasattr(network, name):
            setattr(network, name, nn.Identity())
    return network


@torch.inference_mode()
def same(path, format, part, backbone, head=None, default=False, named=None, architecture=None):
    """Import a part, and hold its features and projections against those of the source networks."""
    found = load_checkpoint(path, named, None if default else part, architecture)
    assert (found.format, found.part) == (format, part)
    network, layers = build_backbone(found.spec), head_from(found.head, found.activation)
    network.load_state_dict(found.backbone, strict=True)
    layers.load_state_dict(found.head, strict=True)
    images = torch.randn(3, 3, 64, 64)
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


class TestMoco:
    def test_version_2_with_the_query_network_alone(self, path):
        backbone, head = settled(stripped(torchvision.models.resnet18())), mlp(512, 512, 16)
        torch.save(training(under("module.encoder_q.", {**backbone.state_dict(), **under("fc.", head)})), path)
        found = same(path, "moco", "query", backbone, head)
        assert found.spec == Backbone(architecture="resnet18")
        assert found.left_out == []
        assert same(path, "moco", "query", backbone, head, default=True).activation == "relu"

    def test_a_full_training_file_gives_either_network_and_never_an_empty_one(self, path):
        backbones, heads = (small50(), small50()), (mlp(128, 128, 16), mlp(128, 128, 16))
        state = queue()
        for name, backbone, head in zip(("encoder_q", "encoder_k"), backbones, heads, strict=True):
            state |= {**under(f"{name}.", backbone), **under(f"{name}.fc.", head)}
        torch.save(training(under("module.", state)), path)
        found = same(path, "moco", "query", backbones[0], heads[0], default=True)
        assert found.spec == Backbone(architecture="resnet50", width=4 / 64)
        assert {"queue", "queue_ptr", "encoder_k.conv1.weight", "encoder_k.fc.2.bias"} <= set(found.left_out)
        assert not any(name.startswith("encoder_q.") for name in found.left_out)
        found = same(path, "moco", "key", backbones[1], heads[1])
        assert len(found.left_out) == len(state) - len(found.backbone) - len(found.head)

    def test_version_1_has_one_linear_layer(self, path):
        backbone, head = small50(), nn.Sequential(nn.Linear(128, 16))
        state = {**under("module.encoder_q.", backbone), **under("module.encoder_q.fc.", head[0])}
        torch.save(training(state), path)
        assert list(same(path, "moco", "query", backbone, head).head) == ["0.weight", "0.bias"]

    def test_a_file_of_before_zip_archives(self, path):
        backbone, head = small18(), mlp(64, 64, 16)
        state = OrderedDict({**under("module.encoder_q.", backbone), **under("module.encoder_q.fc.", head)})
        torch.save(training(state), path, _use_new_zipfile_serialization=False)
        same(path, "moco", "query", backbone, head)


class TestSwav:
    def test_the_release_of_any_width(self, path):
        backbone, head = small50(), mlp(128, 48, 16, norm=True)
        state = {**under("", backbone), **under("projection_head.", head), "prototypes.weight": torch.randn(30, 16)}
        torch.save(under("module.", state), path)
        found = same(path, "swav", "network", backbone, head)
        assert found.left_out == ["prototypes.weight"]
        torch.save(training(under("module.", state), amp={"loss_scaler0": {"loss_scale": 1.0}}), path)
        same(path, "swav", "network", backbone, head, default=True)

    def test_a_full_resnet_50_of_twice_the_width(self, path):
        with torch.device("meta"):
            backbone, head = small50(128), nn.Sequential(nn.Linear(4096, 8192), nn.BatchNorm1d(8192))
        state = {**under("", backbone), **under("projection_head.", head), "prototypes.weight": torch.zeros(30, 16)}
        torch.save({f"module.{name}": torch.zeros(()).expand(value.shape) for name, value in state.items()}, path)
        found = load_checkpoint(path, None, None, None)
        assert found.spec == Backbone(architecture="resnet50", width=2)
        for source, imported in ((backbone, found.backbone), (head, found.head)):
            assert {name: v.shape for name, v in imported.items()} == {
                k: v.shape for k, v in source.state_dict().items()
            }


class TestDistillation:
    """BINGO's, SEED's and DisCo's own files hold a student and a teacher."""

    @pytest.mark.parametrize("swav", [False, True])
    def test_bingo(self, swav, path):
        student, teacher = small18(), small18(12)
        student_head, teacher_head = mlp(64, 24, 16), mlp(96, 24, 16, norm=swav)
        state = {**under("encoder_q.", student), **under("encoder_q.fc.", student_head), **queue()}
        state |= {**under("encoder_k.", teacher), **under("encoder_k.fc.", teacher_head)}
        torch.save(training(under("module.", state)), path)
        same(path, "bingo", "student", student, student_head, default=True)
        found = same(path, "bingo", "teacher", teacher, teacher_head)
        assert {"queue", "encoder_q.fc.0.weight"} <= set(found.left_out)

    def test_bingos_teacher_beside_a_student_that_is_unknown_here(self, path):
        teacher, head = small18(12), mlp(96, 24, 16)
        state = {**under("encoder_k.", teacher), **under("encoder_k.fc.", head), **queue()}
        state |= {"encoder_q._conv_stem.weight": torch.randn(32, 3, 3, 3), "encoder_q._fc.weight": torch.randn(16, 8)}
        torch.save(training(under("module.", state)), path)
        same(path, "bingo", "teacher", teacher, head)

    @pytest.mark.parametrize(
        ("prefix", "place", "norm"),
        [("teacher.", "fc.", False), ("teacher.", "projection_head.", True), ("teacher.module.", "fc.", True)],
    )
    def test_seed_with_a_teacher_of_moco_swav_and_simclr(self, prefix, place, norm, path):
        student, teacher = small18(), small18(12)
        student_head, teacher_head = mlp(64, 64, 16), mlp(96, 24, 16, norm=norm)
        state = {**under("student.", student), **under("student.fc.", student_head), **queue()}
        state |= {**under(prefix, teacher), **under(prefix + place, teacher_head)}
        state |= {prefix + "prototypes.weight": torch.randn(30, 16)} if place == "projection_head." else {}
        torch.save(training(under("module.", state)), path)
        same(path, "seed", "student", student, student_head, default=True)
        found = same(path, "seed", "teacher", teacher, teacher_head)
        assert (prefix + "prototypes.weight" in found.left_out) == (place == "projection_head.")

    def test_disco(self, path):
        names = ("encoder_q", "encoder_k", "teacher_encoder_q", "teacher_encoder_k")
        parts = ("student", "student-momentum", "teacher", "teacher-momentum")
        backbones = (small18(), small18(), small18(12), small18(12))
        heads = (mlp(64, 64, 16), mlp(64, 64, 16), mlp(96, 128, 16), mlp(96, 128, 16))
        state = queue()
        for name, backbone, head in zip(names, backbones, heads, strict=True):
            state |= {**under(f"{name}.", backbone), **under(f"{name}.fc.", head)}
        torch.save(training(under("module.", state)), path)
        for part, backbone, head in zip(parts, backbones, heads, strict=True):
            same(path, "disco", part, backbone, head)
        assert load_checkpoint(path, None, None, None).part == "student"

    def test_discos_efficientnet_has_its_head_for_a_classifier(self, path):
        backbone, head = settled(timm.create_model("efficientnet_b0", num_classes=0)), mlp(1280, 24, 16)
        state = {**under("encoder_q.", backbone), **under("encoder_q.classifier.", head)}
        state |= under("teacher_encoder_q.", small18(12))
        torch.save(training(under("module.", state)), path)
        found = same(path, "disco", "student", backbone, head)
        assert found.spec == Backbone(architecture="timm/efficientnet_b0")


@pytest.mark.parametrize("head", [None, nn.Sequential(nn.Linear(64, 128))])
def test_compress_with_two_queues_and_with_one(head, path):
    backbone = small18()
    state = {**backbone.state_dict(), **(under("fc.", head[0]) if head else {})}
    torch.save({"opt": settings(), "model": under("module.", state), "optimizer": {"state": {}}, "epoch": 130}, path)
    same(path, "compress", "network", backbone, head)


class TestDino:
    @pytest.mark.parametrize(
        ("wrap", "norm", "modern"), [("module.", False, False), ("module.", True, False), ("", False, True)]
    )
    @pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
    def test_a_full_file(self, wrap, norm, modern, path):
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

    def test_the_bare_resnet_50_is_torchvisions_unless_said_otherwise(self, path):
        backbone = small18(12)
        torch.save(backbone.state_dict(), path)
        same(path, "torchvision", "network", backbone)
        for format in ("dino", "timm", "swav", "compress"):
            same(path, format, "network", backbone, named=format)


class TestTorchvisionAndTimm:
    @pytest.mark.parametrize("name", ["resnet18", "efficientnet_b0", "mobilenet_v3_large"])
    @pytest.mark.parametrize("file", ["weights.pth", "model.safetensors"])
    def test_torchvision(self, name, file, tmp_path):
        path, network = tmp_path / file, settled(torchvision.models.get_model(name))
        save(network.state_dict(), path)
        found = same(path, "torchvision", "network", stripped(network))
        assert found.spec == Backbone(architecture=name)
        assert all(name.startswith(("fc.", "classifier.")) for name in found.left_out)
        assert len(found.left_out) == (4 if name == "mobilenet_v3_large" else 2)

    def test_torchvisions_training_file(self, path):
        network = settled(torchvision.models.resnet18())
        torch.save({"model": network.state_dict(), "epoch": 90, "args": settings()}, path)
        same(path, "torchvision", "network", stripped(network))

    def test_timms_efficientnet_by_itself(self, tmp_path):
        path, network = tmp_path / "model.safetensors", settled(timm.create_model("efficientnet_b0"))
        save(network.state_dict(), path)
        found = same(path, "timm", "network", stripped(network))
        assert found.spec == Backbone(architecture="timm/efficientnet_b0")
        assert sorted(found.left_out) == ["classifier.bias", "classifier.weight"]

    @pytest.mark.parametrize(
        "name", ["mobilenetv3_small_050", "tf_efficientnet_b0", "resnet10t", "deit_tiny_distilled_patch16_224"]
    )
    def test_another_of_timms_when_the_study_names_it(self, name, path):
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

    def test_a_resnet_of_timm_has_torchvisions_names(self, path):
        network = settled(timm.create_model("resnet18"))
        torch.save(network.state_dict(), path)
        same(path, "torchvision", "network", stripped(network))
        same(path, "timm", "network", network, architecture="timm/resnet18")


def save(state, path):
    if path.suffix == ".safetensors":
        safetensors.torch.save_file(state, path, {"format": "pt"})
    else:
        torch.save(state, path)


class TestLightly:
    @pytest.mark.parametrize("sequential", [False, True])
    @pytest.mark.parametrize("norm", [False, True])
    def test_both_layouts(self, sequential, norm, path):
        backbones, heads = (small18(), small18()), (mlp(64, 24, 16, norm=norm), mlp(64, 24, 16, norm=norm))
        state = {"criterion.memory_bank.bank": torch.randn(16, 32), "criterion.memory_bank.bank_ptr": torch.zeros(1)}
        state |= under("prediction_head.layers.", mlp(16, 8, 16))
        for end, backbone, head in zip(("", "_momentum"), backbones, heads, strict=True):
            children = [child for child in backbone.children() if not isinstance(child, nn.ConstantPad2d)]
            state |= under(f"backbone{end}.", nn.Sequential(*children[:-1]) if sequential else backbone)
            state |= under(f"projection_head{end}.layers.", head)
        assert ("backbone.4.0.conv1.weight" in state) == sequential
        torch.save(training(state, **{"pytorch-lightning_version": "2.4.0", "hyper_parameters": {"lr": 0.06}}), path)
        found = same(path, "lightly", "online", backbones[0], heads[0], default=True)
        assert {"criterion.memory_bank.bank", "prediction_head.layers.0.weight"} <= set(found.left_out)
        same(path, "lightly", "momentum", backbones[1], heads[1])

    def test_a_head_without_bias_and_with_a_last_batch_norm_without_scale(self, path):
        backbone = small18()
        layers = [nn.Linear(64, 24, bias=False), nn.BatchNorm1d(24), nn.ReLU(), nn.Linear(24, 16, bias=False)]
        head = settled(nn.Sequential(*layers, nn.BatchNorm1d(16, affine=False)))
        torch.save(training({**under("backbone.", backbone), **under("projection_head.layers.", head)}), path)
        same(path, "lightly", "online", backbone, head)


class TestSoloLearn:
    @pytest.mark.parametrize("name", ["backbone", "encoder"])
    def test_both_names_of_the_backbone(self, name, path):
        backbones, heads = (small18(), small18()), (mlp(64, 24, 16), mlp(64, 24, 16, norm=True))
        state = {**under("classifier.", nn.Linear(64, 10)), **queue(), "queue_y": torch.zeros(32)}
        state |= {**under("momentum_classifier.", nn.Linear(64, 10)), **under("predictor.", mlp(16, 8, 16))}
        for start, backbone, head in zip(("", "momentum_"), backbones, heads, strict=True):
            state |= {**under(f"{start}{name}.", backbone), **under(f"{start}projector.", head)}
        torch.save(training(state), path)
        found = same(path, "solo-learn", "online", backbones[0], heads[0], default=True)
        assert {"classifier.weight", "queue", "queue_y", "predictor.0.bias"} <= set(found.left_out)
        same(path, "solo-learn", "momentum", backbones[1], heads[1])


class TestNative:
    spec = Backbone(architecture="resnet10", stem="small", width=1 / 8)

    @pytest.mark.parametrize("activation", ["relu", "gelu"])
    def test_a_teacher(self, activation, tmp_path):
        path = tmp_path / "moco.safetensors"
        between = nn.ReLU if activation == "relu" else nn.GELU
        backbone, head = settled(build_backbone(self.spec)), mlp(64, 24, 16, activation=between)
        write_teacher(path, self.spec, backbone.state_dict(), head.state_dict(), {"method": "moco"}, activation)
        found = same(path, "native", "network", backbone, head)
        assert (found.spec, found.activation, found.left_out) == (self.spec, activation, [])

    @pytest.mark.parametrize("widths", [[24, 16], []])
    def test_a_student_and_the_head_beside_it(self, widths, tmp_path):
        backbone, head = settled(build_backbone(self.spec)), mlp_head(64, widths)
        self.write_student(tmp_path, backbone, head)
        found = same(tmp_path / "backbone.safetensors", "native", "network", backbone, head if widths else None)
        assert found.spec == self.spec

    def write_student(self, folder, backbone, head, **other):
        metadata = {"backbone": self.spec.model_dump(), "method": "bingo"}
        write_tensors(folder / "backbone.safetensors", backbone.state_dict(), metadata)
        write_tensors(folder / "head.safetensors", head.state_dict(), metadata | other)

    def test_a_student_without_its_head_or_with_another_ones_is_refused(self, tmp_path, refusal):
        self.write_student(tmp_path, build_backbone(self.spec), mlp_head(64, [16]), method="moco")
        assert "another student's" in refusal(tmp_path / "backbone.safetensors")
        assert "backbone.safetensors beside it" in refusal(tmp_path / "head.safetensors")
        (tmp_path / "head.safetensors").unlink()
        assert "head.safetensors is not beside it" in refusal(tmp_path / "backbone.safetensors")


def test_a_small_stem_is_told_by_its_kernel(path):
    backbone = small18(stem=3)
    torch.save(backbone.state_dict(), path)
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
    state = {**under("encoder_q.", backbone), **under("encoder_q.fc.", head)}
    state = {name: value for name, value in state.items() if not name.endswith("num_batches_tracked")}
    torch.save(training(under("module.", state)), path)
    found = same(path, "moco", "query", backbone, head)
    counters = [v for k, v in {**found.backbone, **found.head}.items() if k.endswith("num_batches_tracked")]
    assert len(counters) == 21
    assert all(v.dtype == torch.int64 and v.shape == () and v == 0 and v.device.type == "cpu" for v in counters)


def test_reading_draws_no_random_numbers(path):
    torch.save(small18().state_dict(), path)
    before = torch.get_rng_state()
    load_checkpoint(path, None, None, None)
    assert torch.equal(torch.get_rng_state(), before)
