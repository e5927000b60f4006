"""Files that are refused: each in one line, with what is wrong and the remedy, and never executed."""

import argparse
import os
import pathlib

import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import HealthCheck, given, strategies
from hypothesis import settings as options
from torch import nn

from bingo.errors import BingoError
from bingo.importers.inspect import describe
from bingo.importers.load import load_checkpoint
from bingo.models.backbone import build_backbone
from bingo.models.checkpoint import write_teacher
from bingo.study.sections import Backbone

from .source_networks import DinoHead, mlp, queue, settings, small18, small50, training, under


@pytest.fixture
def path(tmp_path):
    return tmp_path / "weights.pth.tar"


def moco_state():
    return {**under("encoder_q.", small18()), **under("encoder_q.fc.", mlp(64, 24, 16)), **queue()}


class Attack:
    """What makes a file that runs a program when it is unpickled."""

    def __init__(self, created):
        self.created = created

    def __reduce__(self):
        return os.mkdir, (str(self.created),)


class TestPickles:
    @pytest.mark.parametrize("zipped", [True, False])
    def test_a_malicious_one_is_not_executed(self, zipped, path, tmp_path, refusal):
        created = tmp_path / "attacked"
        root = training(under("module.", moco_state()), extra=Attack(created))
        torch.save(root, path, _use_new_zipfile_serialization=zipped)
        message = refusal(path)
        assert "posix.mkdir" in message
        assert "save only its state dict" in message
        with pytest.raises(BingoError, match=r"posix\.mkdir"):
            describe(path)
        assert not created.exists()
        torch.load(path, weights_only=False)
        assert created.exists()  # else nothing was tested

    @pytest.mark.parametrize(
        ("value", "wanted"),
        [(np.float64(1), "numpy"), (pathlib.PurePosixPath("x"), "pathlib"), (nn.Linear(2, 2), "Linear")],
    )
    def test_any_other_global_than_settings_is_refused_by_name(self, value, wanted, path, refusal):
        torch.save(training(moco_state(), extra=value), path)
        assert wanted in refusal(path)
        torch.save(training(moco_state(), extra=settings()), path)
        load_checkpoint(path, None, None, None)

    def test_allowing_settings_lasts_no_longer_than_the_reading(self, path):
        torch.save(training(moco_state(), extra=settings()), path)
        before = torch.serialization.get_safe_globals()
        load_checkpoint(path, None, None, None)
        assert set(torch.serialization.get_safe_globals()) == set(before)
        assert argparse.Namespace not in before


class TestFiles:
    def test_a_missing_file_and_a_folder(self, tmp_path, refusal):
        assert refusal(tmp_path / "absent.pth") == "no such file"
        assert "folder" in refusal(tmp_path)

    @pytest.mark.parametrize("name", ["weights.pth", "weights.safetensors"])
    @pytest.mark.parametrize(
        "content", [b"", b"\x80", b"<html>not found</html>", bytes(range(256)) * 9, b"PK\x03\x04" + bytes(99)]
    )
    def test_files_of_another_kind(self, name, content, tmp_path, refusal):
        path = tmp_path / name
        path.write_bytes(content)
        assert "damaged" in refusal(path)
        with pytest.raises(BingoError):
            describe(path)

    def test_a_file_that_one_may_not_read(self, path, refusal, monkeypatch):
        path.touch()
        monkeypatch.setattr(torch, "load", lambda *_args, **_options: open(path.parent / "x", opener=denied))  # noqa: SIM115
        assert "rights" in refusal(path)

    @pytest.mark.parametrize(
        "root", [{}, [], 3, {"epoch": 1}, {"state_dict": {}}, {"teacher": {}}, {"model": {"a": 1}}]
    )
    def test_a_file_without_weights(self, root, path, refusal):
        torch.save(root, path)
        assert "holds no weights" in refusal(path)


def denied(*_arguments):
    raise PermissionError(13, "Permission denied")


def sources(folder):
    """One file of each kind, as small as can be."""
    state = small18(1).state_dict()
    torch.save(training(under("module.encoder_q.", state), args=settings()), folder / "zip.pth")
    torch.save(training(state, args=settings()), folder / "old.pth", _use_new_zipfile_serialization=False)
    safetensors.torch.save_file(state, folder / "plain.safetensors")
    spec = Backbone(architecture="resnet18", width=1 / 64)
    write_teacher(folder / "own.safetensors", spec, build_backbone(spec).state_dict(), {}, {})
    return sorted(folder.iterdir())


@pytest.fixture(scope="session")
def whole_files(tmp_path_factory):
    return {path.name: path.read_bytes() for path in sources(tmp_path_factory.mktemp("whole"))}


def written(content, path):
    path.write_bytes(content)
    return path


class TestDamage:
    @options(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
    @given(
        name=strategies.sampled_from(["zip.pth", "old.pth", "plain.safetensors", "own.safetensors"]),
        where=strategies.floats(0, 1),
        near_the_start=strategies.booleans(),
        flips=strategies.lists(strategies.integers(1, 255), max_size=4),
        cut=strategies.booleans(),
    )
    def test_damaged_bytes_never_raise_anything_but_one_line(
        self, name, where, near_the_start, flips, cut, whole_files, tmp_path
    ):
        content = bytearray(whole_files[name])
        position = int(where * (2000 if near_the_start else len(content) - 1))
        for i, flip in enumerate(flips):
            content[(position + i) % len(content)] ^= flip
        path = written(content[: position if cut else None], tmp_path / name)
        for read in (describe, lambda path: load_checkpoint(path, None, None, None)):
            try:
                read(path)
            except BingoError as error:
                assert str(error).startswith(f"{path}: ")  # noqa: PT017

    @pytest.mark.parametrize("name", ["zip.pth", "own.safetensors"])
    def test_a_flipped_bit_is_found_where_the_file_has_checksums(self, name, whole_files, tmp_path, refusal):
        content = bytearray(whole_files[name])
        weights = load_checkpoint(written(content, tmp_path / name), None, None, None).backbone["conv1.weight"]
        content[content.index(weights.numpy().tobytes())] ^= 1
        written(content, tmp_path / name)
        assert "damaged" in refusal(tmp_path / name)

    def test_the_whole_files_are_read(self, whole_files, tmp_path):
        for name, content in whole_files.items():
            assert load_checkpoint(written(content, tmp_path / name), None, None, None).spec.architecture == "resnet18"


class TestNames:
    def test_a_file_with_no_backbone_fails_loudly(self, path, refusal):
        torch.save(training(under("module.", queue())), path)
        message = refusal(path)
        assert "queue, queue_ptr" in message
        assert "no known layout" in message
        torch.save(training(under("encoder_q.fc.", mlp(64, 24, 16))), path)
        assert "no known network has such names" in refusal(path)

    @pytest.mark.parametrize("name", ["encoder_q.layer4.1.conv2.weight", "encoder_q.bn1.running_var"])
    def test_a_missing_name_is_listed(self, name, path, refusal):
        state = moco_state()
        del state[name]
        torch.save(training(state), path)
        assert f"lacks 1: {name.removeprefix('encoder_q.')};" in refusal(path)

    def test_many_missing_names_are_counted(self, path, refusal):
        state = {name: value for name, value in moco_state().items() if "running_mean" not in name}
        torch.save(training(state), path)
        message = refusal(path)
        assert "lacks 20: bn1.running_mean" in message
        assert "and 12 more" in message
        assert len(message) < 600

    @pytest.mark.parametrize(
        ("name", "said"),
        [
            ("encoder_q.layer1.0.se.weight", "has besides 1: encoder_q.layer1.0.se.weight"),
            ("encoder_q.temperature", "has besides 1: encoder_q.temperature"),
            ("encoder_z.conv1.weight", "no part of moco has: encoder_z.conv1.weight"),
            ("queues", None),
        ],
    )
    def test_a_name_left_over_is_listed(self, name, said, path, refusal):
        torch.save(training(moco_state() | {name: torch.zeros(2)}), path)
        if said is None:
            assert name in load_checkpoint(path, None, None, None).left_out
        else:
            assert said in refusal(path)

    @pytest.mark.parametrize("name", ["encoder_q.\x1b[31mred", "\ud800", "two\nlines"])
    def test_names_that_would_garble_a_terminal(self, name, path, refusal):
        torch.save(training(moco_state() | {name: torch.zeros(2)}), path)
        assert "its names are no text" in refusal(path)

    def test_names_wrapped_in_part_only_are_not_unwrapped(self, path, refusal):
        state = under("module.", moco_state())
        state["queue"] = state.pop("module.queue")
        torch.save(training(state), path)
        assert "module.encoder_q.conv1.weight" in refusal(path)

    def test_a_head_left_out_of_the_name_of_another_network_is_not_used(self, path, refusal):
        state = {**under("backbone.", small18()), **under("projection_head_global.layers.", mlp(64, 24, 16))}
        torch.save(training(state), path)
        assert "projection_head_global.layers.0.weight" in refusal(path)

    def test_lightlys_own_small_resnet_has_other_modules_and_is_refused(self, path, refusal):
        children = [child for child in small18(stem=3).children() if not isinstance(child, nn.ConstantPad2d)]
        without_functions = [child for child in children[:-2] if list(child.parameters())]
        torch.save(training(under("backbone.", nn.Sequential(*without_functions))), path)
        assert "ResNet" in refusal(path)


class TestShapes:
    def test_a_wrong_shape_is_listed_with_the_right_one(self, path, refusal):
        state = moco_state()
        state["encoder_q.layer2.0.conv1.weight"] = torch.zeros(17, 8, 3, 3)
        torch.save(training(state), path)
        said = "has in another shape 1: encoder_q.layer2.0.conv1.weight [17, 8, 3, 3] for [16, 8, 3, 3]"
        assert said in refusal(path)

    def test_torchvisions_wide_resnet_is_not_taken_for_a_wide_one_of_ours(self, path, refusal):
        import torchvision

        with torch.device("meta"):
            state = torchvision.models.wide_resnet50_2().state_dict()
        torch.save({name: torch.zeros(()).expand(value.shape) for name, value in state.items()}, path)
        message = refusal(path)
        assert "[128, 64, 1, 1] for [64, 64, 1, 1]" in message
        assert "architecture: timm/<name>" in message
        assert load_checkpoint(path, None, None, "timm/wide_resnet50_2").spec.architecture == "timm/wide_resnet50_2"

    def test_a_resnet_of_unknown_depth_or_width(self, path, refusal):
        state = small50().state_dict()
        torch.save({name: value for name, value in state.items() if not name.startswith("layer3.5.")}, path)
        assert "[3, 4, 5, 3] blocks (Bottleneck)" in refusal(path)
        torch.save({**small18().state_dict(), "conv1.weight": torch.zeros(320, 3, 7, 7)}, path)
        assert "'width': 5.0" in refusal(path)

    def test_solo_learns_small_stem_pads_otherwise(self, path, refusal):
        torch.save(training({**under("backbone.", small18(stem=3)), **under("projector.", mlp(64, 24, 16))}), path)
        assert "pads its 3x3 first convolution by 2" in refusal(path)


class TestHeads:
    @pytest.mark.parametrize(
        ("head", "said"),
        [
            (nn.Sequential(nn.Linear(65, 16)), "unknown form"),  # for other features
            (nn.Sequential(nn.Linear(64, 24), nn.ReLU(), nn.Linear(25, 16)), "unknown form"),  # no chain
            (nn.Sequential(nn.Conv2d(64, 16, 1)), "neither linear nor a batch-norm"),
            (nn.Sequential(nn.Dropout(), nn.Linear(64, 16)), "only layers [1] have weights"),
            (nn.Sequential(nn.Linear(64, 24), nn.Tanh(), nn.Dropout(), nn.Linear(24, 16)), "only layers [0, 3]"),
            (nn.Sequential(nn.Linear(64, 24), nn.LayerNorm(24)), "neither linear nor a batch-norm"),
            (nn.ModuleDict({"up": nn.Linear(64, 24)}), "unknown form"),
        ],
    )
    def test_one_of_an_unknown_form(self, head, said, path, refusal):
        torch.save(training({**under("encoder_q.", small18()), **under("encoder_q.fc.", head)}), path)
        message = refusal(path)
        assert "projection head" in message
        assert said in message

    def test_a_bias_of_another_width_and_a_batch_norm_without_variance(self, path, refusal):
        state = {**moco_state(), "encoder_q.fc.2.bias": torch.zeros(17)}
        torch.save(training(state), path)
        assert "encoder_q.fc.2.bias [17] for [16]" in refusal(path)
        state = {**under("encoder_q.", small18()), **under("encoder_q.fc.", mlp(64, 24, 16, norm=True))}
        del state["encoder_q.fc.1.running_var"]
        torch.save(training(state), path)
        assert "lacks 1: 1.running_var" in refusal(path)

    def test_two_heads_are_one_too_many(self, path, refusal):
        torch.save(training(moco_state() | under("encoder_q.projection_head.", mlp(64, 24, 16))), path)
        assert "several projection heads (encoder_q.fc., encoder_q.projection_head.)" in refusal(path)


class TestValues:
    @pytest.mark.parametrize("value", [float("nan"), float("inf")])
    @pytest.mark.parametrize("name", ["encoder_q.layer3.0.bn2.running_var", "encoder_q.fc.2.weight"])
    def test_one_that_is_not_finite(self, value, name, path, refusal):
        state = moco_state()
        state[name].view(-1)[3] = value
        torch.save(training(state), path)
        assert f"'{name}' holds values that are not finite" in refusal(path)

    def test_one_that_is_not_finite_in_what_is_left_out_does_not_matter(self, path):
        torch.save(training(moco_state() | {"queue": torch.full((16, 32), float("nan"))}), path)
        load_checkpoint(path, None, None, None)

    def test_one_beyond_float32(self, path, refusal):
        torch.save(training(moco_state() | {"encoder_q.bn1.bias": torch.full((8,), 1e300, dtype=torch.float64)}), path)
        assert "not finite" in refusal(path)

    @pytest.mark.filterwarnings("ignore:Validating sparse tensor")
    @pytest.mark.parametrize(
        "tensor", [torch.zeros(8).to_sparse(), torch.zeros(8, dtype=torch.complex64), torch.zeros(8, device="meta")]
    )
    def test_one_that_is_no_plain_number(self, tensor, path, refusal):
        torch.save(training(moco_state() | {"encoder_q.bn1.bias": tensor}), path)
        assert "no plain tensor" in refusal(path)


class TestWhatTheStudySays:
    def test_another_format_is_answered_by_what_the_file_looks_like(self, path, refusal):
        torch.save(training(under("module.", moco_state())), path)
        for format in ("swav", "dino", "native", "lightly", "torchvision"):
            message = refusal(path, format=format)
            assert f"is no file of {format}" in message
            assert message.endswith("it looks like moco")
        head = DinoHead(64, modern=True)
        torch.save({"teacher": {**under("backbone.", small18()), **under("head.", head)}}, path)
        assert refusal(path, format="lightly").endswith("it looks like dino")

    def test_a_format_that_fits_in_part_is_answered_so_too(self, path, refusal):
        torch.save(training({**under("backbone.", small18()), **under("projector.", mlp(64, 24, 16))}), path)
        message = refusal(path, format="lightly")
        assert "no part of lightly has: projector.0.weight" in message
        assert message.endswith("it looks like solo-learn")

    def test_an_unknown_part(self, path, refusal):
        torch.save(training(moco_state()), path)
        assert refusal(path, part="key") == "a file of moco has no part 'key'; known: query"
        assert "did you mean 'query'?" in refusal(path, part="qwery")

    def test_another_architecture(self, path, refusal):
        torch.save(training(moco_state()), path)
        assert "is resnet18, not resnet50" in refusal(path, architecture="resnet50")
        load_checkpoint(path, None, None, "resnet18")
        assert "no architecture 'resnet51'" in refusal(path, architecture="resnet51")
        assert "has no model 'resnet51'" in refusal(path, architecture="timm/resnet51")
        assert "is no whole timm/vit_tiny_patch16_224" in refusal(path, architecture="timm/vit_tiny_patch16_224")

    def test_a_file_of_this_project_says_itself_what_it_is(self, tmp_path, refusal):
        path, spec = tmp_path / "teacher.safetensors", Backbone(architecture="resnet10", stem="small", width=1 / 8)
        write_teacher(path, spec, build_backbone(spec).state_dict(), {}, {})
        assert "is resnet10, not resnet18" in refusal(path, architecture="resnet18")
        other = Backbone(architecture="resnet18", stem="small", width=1 / 8)
        write_teacher(path, other, build_backbone(spec).state_dict(), {}, {})
        assert "is no whole resnet18: lacks" in refusal(path)

    def test_a_network_that_only_timm_knows_needs_its_name(self, path, refusal):
        torch.save({"cls_token": torch.zeros(1, 1, 8), "pos_embed": torch.zeros(1, 5, 8)}, path)
        message = refusal(path)
        assert "cls_token, pos_embed" in message
        assert "architecture: timm/<name>" in message
