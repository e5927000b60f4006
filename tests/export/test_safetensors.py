import safetensors.torch
import torch

import bingo
from bingo.artifacts.tensors import read_metadata
from bingo.export.safetensors import export_safetensors
from bingo.models.backbone import build_backbone
from bingo.models.checkpoint import write_teacher
from bingo.models.head import mlp_head
from bingo.study.sections import Backbone, Preprocessing

SPEC = {"architecture": "resnet10", "width": 1 / 16}


def test_its_tensors_are_the_backbones_and_its_header_says_what_it_is(student, tmp_path):
    network, path = student(**SPEC)
    output = tmp_path / "exports" / "network.safetensors"
    export_safetensors(path, output, 70)
    weights = safetensors.torch.load_file(output)
    assert weights.keys() == network.state_dict().keys()
    assert all(torch.equal(weights[name], value) for name, value in network.state_dict().items())
    said = read_metadata(output)
    assert said["provenance"] == read_metadata(path)["provenance"]
    assert (said["backbone"], said["method"]) == (Backbone(**SPEC).model_dump(), "bingo")
    expected = Preprocessing(size=64, resize=70, mean=[0.3, 0.4, 0.5], std=[0.1, 0.2, 0.3])
    assert Preprocessing(**said["preprocessing"]) == expected
    assert bingo.load_backbone(output).transform.preprocessing == expected


def test_the_head_of_a_teacher_is_left_out(tmp_path):
    spec = Backbone(**SPEC)
    network, head = build_backbone(spec), mlp_head(32, [16, 8])
    write_teacher(tmp_path / "teacher.safetensors", spec, network.state_dict(), head.state_dict(), {"method": "moco"})
    export_safetensors(tmp_path / "teacher.safetensors", tmp_path / "network.safetensors", None)
    assert safetensors.torch.load_file(tmp_path / "network.safetensors").keys() == network.state_dict().keys()
