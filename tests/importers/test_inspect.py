import pytest
import torch
import yaml

from bingo.importers.inspect import describe
from bingo.study.teachers import ImportedTeacher

from .source_networks import encoder, mlp, queue, small18, small50, training, under


@pytest.fixture
def path(tmp_path):
    return tmp_path / "MoCo v2.800ep.pth.tar"


def entry(text):
    """Return the entry of a study that the text proposes: its name and its keys."""
    ((name, entry),) = yaml.safe_load(text[text.index("teachers:") :].partition("\n\n")[0])["teachers"].items()
    ImportedTeacher.model_validate(entry)
    return name, entry


def line_of(text, name):
    """Return the line that describes one network of a file."""
    (line,) = (line for line in text.splitlines() if line.startswith(f"  {name}"))
    return line


def test_a_file_of_two_networks_is_described_with_its_entry_in_a_study(path):
    state = queue()
    for name in ("encoder_q.", "encoder_k."):
        state |= encoder(name, small50(), mlp(128, 24, 16, norm=True))
    torch.save(training(under("module.", state)), path)
    text = describe(path)
    size = sum(p.numel() for network in (small50(), mlp(128, 24, 16, norm=True)) for p in network.parameters())
    assert text.startswith(f"{path}: {path.stat().st_size / 1e6:.1f} MB, {len(state)} tensors")
    for fact in ("['state_dict']", "'module.'", "epoch, arch, optimizer", "format: moco", "queue (1), queue_ptr (1)"):
        assert fact in text
    for name in ("query", "key"):
        line = line_of(text, name)
        for fact in ("resnet50", "0.0625", "128 features", "linear 128-24, batch-norm, ReLU, linear 24-16"):
            assert fact in line
        assert f"{size / 1e6:.2f} M" in line
    assert entry(text) == ("moco-v2", {"checkpoint": str(path)})
    assert text.endswith("part: key")


def test_an_unknown_student_does_not_hide_its_teacher(path):
    state = {**under("encoder_k.", small18()), "encoder_q._conv_stem.weight": torch.randn(32, 3, 3, 3)}
    torch.save(training(under("module.", state)), path)
    text = describe(path)
    assert "_conv_stem.weight" in line_of(text, "student")
    assert "resnet18, width 0.125, 64 features" in line_of(text, "teacher")
    assert entry(text)[1] == {"checkpoint": str(path), "part": "teacher"}


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"bn1.bias": torch.full((8,), float("nan"))}, "'bn1.bias'"),
        ({"layer1.0.se.weight": torch.zeros(2)}, "layer1.0.se.weight"),
        ({"conv1.weight": torch.zeros(8, 3, 5, 5)}, "conv1.weight"),
    ],
)
def test_a_file_that_cannot_be_used_has_no_entry(change, named, path):
    torch.save(small18().state_dict() | change, path)
    text = describe(path)
    assert "format: torchvision" in text
    assert named in line_of(text, "network")
    assert "teachers:" not in text


def test_a_file_of_no_known_format_is_described_by_its_names(path):
    torch.save({"state_dict": {"cls_token": torch.zeros(1, 1, 8), "pos_embed": torch.zeros(3)}}, path)
    text = describe(path)
    assert "cls_token, pos_embed" in text
    assert "architecture: timm/<name>" in text
    assert "teachers:" not in text
