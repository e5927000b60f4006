"""Weights that are not exactly a known network are refused: with the names, shapes or values that differ."""

import pytest
import torch
import torchvision
from torch import nn

from bingo.importers.load import load_checkpoint
from bingo.models.backbone import build_backbone
from bingo.models.checkpoint import write_teacher
from bingo.study.sections import Backbone

from .source_networks import DinoHead, encoder, mlp, queue, small18, small50, training, under


@pytest.mark.parametrize(
    ("state", "named"),
    [
        (lambda: under("module.", queue()), "queue, queue_ptr"),
        (lambda: under("encoder_q.fc.", mlp(64, 24, 16)), ""),
        (lambda: {"cls_token": torch.zeros(1, 1, 8), "pos_embed": torch.zeros(1, 5, 8)}, "cls_token, pos_embed"),
        (
            lambda: {**under("backbone.", small18()), **under("projection_head_global.layers.", mlp(64, 24, 16))},
            "projection_head_global.layers.0.weight",
        ),
    ],
    ids=["no backbone", "a head alone", "only timm's", "an unknown head"],
)
def test_unknown_names_are_listed(state, named, path, refusal):
    torch.save(training(state()), path)
    assert named in refusal(path)


def changed(state, name, value):
    """Return a state dict with an entry replaced or added; without it for None."""
    return {key: entry for key, entry in {**state, name: value}.items() if entry is not None}


@pytest.mark.parametrize(
    ("name", "value", "named"),
    [
        ("encoder_q.layer4.1.conv2.weight", None, "layer4.1.conv2.weight"),
        ("encoder_q.bn1.running_var", None, "bn1.running_var"),
        ("encoder_q.layer1.0.se.weight", torch.zeros(2), "encoder_q.layer1.0.se.weight"),
        ("encoder_q.temperature", torch.zeros(2), "encoder_q.temperature"),
        ("encoder_z.conv1.weight", torch.zeros(2), "encoder_z.conv1.weight"),
        ("encoder_q.layer2.0.conv1.weight", torch.zeros(17, 8, 3, 3), "encoder_q.layer2.0.conv1.weight"),
        ("encoder_q.fc.2.bias", torch.zeros(17), "encoder_q.fc.2.bias"),
        ("encoder_q.layer3.0.bn2.running_var", torch.full((32,), torch.inf), "'encoder_q.layer3.0.bn2.running_var'"),
        ("encoder_q.fc.2.bias", torch.full((16,), torch.nan), "'encoder_q.fc.2.bias'"),
        ("encoder_q.bn1.bias", torch.full((8,), 1e300, dtype=torch.float64), "'encoder_q.bn1.bias'"),
        ("encoder_q.bn1.bias", torch.zeros(8).to_sparse(), "'encoder_q.bn1.bias'"),
        ("encoder_q.bn1.bias", torch.zeros(8, dtype=torch.complex64), "'encoder_q.bn1.bias'"),
        ("encoder_q.bn1.bias", torch.zeros(8, device="meta"), "'encoder_q.bn1.bias'"),
    ],
)
@pytest.mark.filterwarnings("ignore:Validating sparse tensor")
def test_an_entry_that_does_not_fit_is_named(name, value, named, path, moco_state, refusal):
    torch.save(training(changed(moco_state, name, value)), path)
    assert named in refusal(path)


@pytest.mark.parametrize(("name", "value"), [("queues", torch.zeros(2)), ("queue", torch.full((16, 32), torch.nan))])
def test_entries_that_are_left_out_do_not_matter(name, value, path, moco_state):
    torch.save(training(changed(moco_state, name, value)), path)
    assert name in load_checkpoint(path, None, None, None).left_out


def test_networks_that_resemble_a_resnet_are_refused(path, refusal):
    children = [child for child in small18(stem=3).children() if not isinstance(child, nn.ConstantPad2d)]
    lightlys = nn.Sequential(*(child for child in children[:-2] if list(child.parameters())))
    torch.save(training(under("backbone.", lightlys)), path)
    assert "ResNet" in refusal(path)
    state = {name: value for name, value in small50().state_dict().items() if not name.startswith("layer3.5.")}
    torch.save(state, path)
    assert "[3, 4, 5, 3]" in refusal(path)
    torch.save({**small18().state_dict(), "conv1.weight": torch.zeros(320, 3, 7, 7)}, path)
    assert "'width': 5.0" in refusal(path)
    # solo-learn pads its small stem by 2.
    torch.save(training({**under("backbone.", small18(stem=3)), **under("projector.", mlp(64, 24, 16))}), path)
    assert "solo-learn" in refusal(path)


@pytest.mark.slow
def test_torchvisions_wide_resnet_is_not_taken_for_a_wide_one_of_ours(path, refusal):
    with torch.device("meta"):
        state = torchvision.models.wide_resnet50_2().state_dict()
    torch.save({name: torch.zeros(()).expand(value.shape) for name, value in state.items()}, path)
    message = refusal(path)
    assert "[128, 64, 1, 1]" in message
    assert "[64, 64, 1, 1]" in message
    assert load_checkpoint(path, None, None, "timm/wide_resnet50_2").spec.architecture == "timm/wide_resnet50_2"


@pytest.mark.parametrize(
    "head",
    [
        nn.Sequential(nn.Linear(65, 16)),  # for other features
        nn.Sequential(nn.Linear(64, 24), nn.ReLU(), nn.Linear(25, 16)),  # no chain
        nn.Sequential(nn.Conv2d(64, 16, 1)),
        nn.Sequential(nn.Dropout(), nn.Linear(64, 16)),
        nn.Sequential(nn.Linear(64, 24), nn.Tanh(), nn.Dropout(), nn.Linear(24, 16)),
        nn.Sequential(nn.Linear(64, 24), nn.LayerNorm(24)),
        nn.ModuleDict({"up": nn.Linear(64, 24)}),
    ],
)
def test_a_head_of_an_unknown_form_is_refused(head, path, refusal):
    torch.save(training(encoder("encoder_q.", small18(), head)), path)
    message = refusal(path)
    assert "projection head" in message
    assert "encoder_q.fc." in message


def test_a_batch_norm_without_variance_and_a_second_head_are_refused(path, moco_state, refusal):
    state = encoder("encoder_q.", small18(), mlp(64, 24, 16, norm=True))
    del state["encoder_q.fc.1.running_var"]
    torch.save(training(state), path)
    assert "1.running_var" in refusal(path)
    torch.save(training(moco_state | under("encoder_q.projection_head.", mlp(64, 24, 16))), path)
    assert "encoder_q.fc., encoder_q.projection_head." in refusal(path)


def test_a_wrong_format_is_answered_by_the_one_the_file_resembles(path, moco_state, refusal):
    torch.save(training(under("module.", moco_state)), path)
    for format in ("swav", "dino", "native", "lightly", "torchvision"):
        message = refusal(path, format=format)
        assert format in message
        assert message.endswith(" moco")
    torch.save({"teacher": {**under("backbone.", small18()), **under("head.", DinoHead(64, modern=True))}}, path)
    assert refusal(path, format="lightly").endswith(" dino")
    torch.save(training({**under("backbone.", small18()), **under("projector.", mlp(64, 24, 16))}), path)
    message = refusal(path, format="lightly")
    assert "projector.0.weight" in message
    assert message.endswith(" solo-learn")


def test_a_wrong_part_or_architecture_is_answered_by_those_that_fit(path, moco_state, refusal):
    torch.save(training(moco_state), path)
    for part in ("key", "qwery"):
        message = refusal(path, part=part)
        assert f"'{part}'" in message
        assert "query" in message
    load_checkpoint(path, None, None, "resnet18")
    for architecture in ("resnet50", "resnet51", "timm/resnet51", "timm/vit_tiny_patch16_224"):
        assert architecture.removeprefix("timm/") in refusal(path, architecture=architecture)


def test_metadata_of_this_project_decide_the_architecture(tmp_path, refusal):
    path, spec = tmp_path / "teacher.safetensors", Backbone(architecture="resnet10", stem="small", width=1 / 8)
    write_teacher(path, spec, build_backbone(spec).state_dict(), {}, {})
    message = refusal(path, architecture="resnet18")
    assert "resnet10" in message
    assert "resnet18" in message
    other = Backbone(architecture="resnet18", stem="small", width=1 / 8)
    write_teacher(path, other, build_backbone(spec).state_dict(), {}, {})
    assert "layer1.1.conv1.weight" in refusal(path)
