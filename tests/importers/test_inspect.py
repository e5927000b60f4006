import pytest
import timm
import torch
import yaml

from bingo.errors import BingoError
from bingo.importers.inspect import describe
from bingo.models.backbone import build_backbone
from bingo.models.checkpoint import write_teacher
from bingo.study.sections import Backbone
from bingo.study.teachers import ImportedTeacher

from .source_networks import mlp, queue, settings, small18, small50, training, under


@pytest.fixture
def path(tmp_path):
    return tmp_path / "MoCo v2.800ep.pth.tar"


def entry(text):
    """The entry of a study that the text proposes: its name and what is in it."""
    ((name, entry),) = yaml.safe_load(text.partition("in a study:\n")[2].partition("\n\n")[0])["teachers"].items()
    ImportedTeacher.model_validate(entry)
    return name, entry


def moco_state():
    state = queue()
    for name in ("encoder_q.", "encoder_k."):
        state |= {**under(name, small50()), **under(f"{name}fc.", mlp(128, 24, 16, norm=True))}
    return state


def test_a_file_of_two_networks(path):
    torch.save(training(under("module.", moco_state())), path)
    text = describe(path)
    size = sum(p.numel() for network in (small50(), mlp(128, 24, 16, norm=True)) for p in network.parameters())
    lines = text.splitlines()
    assert lines[0].startswith(f"{path}: {path.stat().st_size / 1e6:.1f} MB, {len(moco_state())} tensors")
    assert lines[0].endswith("in ['state_dict'], every name under 'module.'")
    assert "beside them: epoch, arch, optimizer" in lines
    assert "format: moco, detect_formats by encoder_q.conv1.weight" in lines
    shared = "resnet50, width 0.0625, 128 features; head linear 128-24, batch-norm, ReLU, linear 24-16"
    shared += f"; {size / 1e6:.2f} M parameters"
    assert f"  query (default): {shared}" in lines
    assert f"  key: {shared}" in lines
    assert "left out: queue (1), queue_ptr (1)" in lines
    assert "cannot" not in text
    assert entry(text) == ("moco-v2", {"checkpoint": str(path)})
    assert text.endswith("and for another of its networks, part: key")


def test_a_student_that_is_unknown_here_does_not_hide_its_teacher(path):
    state = {**under("encoder_k.", small18()), "encoder_q._conv_stem.weight": torch.randn(32, 3, 3, 3)}
    torch.save(training(under("module.", state)), path)
    text = describe(path)
    assert "  student (default): cannot be used: no known network has such names (_conv_stem.weight)" in text
    assert "  teacher: resnet18, width 0.125, 64 features; no head" in text
    assert "left out: encoder_q (1)" in text
    assert entry(text)[1] == {"checkpoint": str(path), "part": "teacher"}


def test_what_shapes_do_not_tell_is_said(path):
    torch.save(timm.create_model("efficientnet_b0").state_dict(), path)
    text = describe(path)
    assert "timm/efficientnet_b0, 1280 features" in text
    assert "architecture: timm/tf_efficientnet_b0" in text
    assert "left out: classifier (2)" in text
    state = small18(stem=3).state_dict()
    torch.save({name: value for name, value in state.items() if "num_batches" not in name}, path)
    text = describe(path)
    assert "taken for stride 1, padding 1 and no pooling" in text
    assert "without num_batches_tracked, which are set to zero" in text


def test_files_of_this_project(tmp_path):
    path, spec = tmp_path / "teacher.safetensors", Backbone(architecture="resnet10", stem="small", width=1 / 8)
    write_teacher(path, spec, build_backbone(spec).state_dict(), mlp(64, 16).state_dict(), {"method": "moco"})
    text = describe(path)
    assert "in a teacher of this project" in text
    assert "  network (default): resnet10, width 0.125, 64 features; head linear 64-16" in text
    assert entry(text) == ("teacher", {"checkpoint": str(path)})


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"bn1.bias": torch.full((8,), float("nan"))}, "'bn1.bias' holds values that are not finite"),
        ({"layer1.0.se.weight": torch.zeros(2)}, "has besides 1: layer1.0.se.weight"),
        ({"conv1.weight": torch.zeros(8, 3, 5, 5)}, "conv1.weight [8, 3, 5, 5] for [8, 3, 7, 7]"),
    ],
)
def test_a_file_that_cannot_be_used_as_it_stands(change, said, path):
    torch.save(small18().state_dict() | change, path)
    text = describe(path)
    assert "format: torchvision" in text
    assert "cannot be used: " in text
    assert said in text
    assert text.endswith("cannot be used as it stands")
    assert "in a study" not in text


def test_a_file_of_no_known_format(path):
    torch.save(
        {"state_dict": {"cls_token": torch.zeros(1, 1, 8), "pos_embed": torch.zeros(3)}, "args": settings()}, path
    )
    text = describe(path)
    assert "2 tensors in ['state_dict']" in text
    assert "format: unknown, with names cls_token, pos_embed" in text
    assert text.endswith("cannot be used as it stands; if timm has this network, give architecture: timm/<name>")


def test_a_missing_file(tmp_path):
    with pytest.raises(BingoError, match="no such file"):
        describe(tmp_path / "absent.pth")
