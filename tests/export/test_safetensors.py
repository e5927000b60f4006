import safetensors.torch
import torch

import bingo
from bingo.artifacts.tensors import read_metadata
from bingo.export.safetensors import export_safetensors
from bingo.study.sections import Backbone, Preprocessing

SPEC = {"architecture": "resnet10", "width": 1 / 16}


def test_the_file_holds_the_backbone_its_origin_and_its_preprocessing(student, tmp_path):
    network, path = student(**SPEC)
    output = tmp_path / "exports" / "network.safetensors"
    export_safetensors(path, output, 70)
    weights = safetensors.torch.load_file(output)
    assert weights.keys() == network.state_dict().keys()
    assert all(torch.equal(weights[name], value) for name, value in network.state_dict().items())
    metadata = read_metadata(output)
    assert metadata["provenance"] == read_metadata(path)["provenance"]
    assert (metadata["backbone"], metadata["method"]) == (Backbone(**SPEC).model_dump(), "bingo")
    expected = Preprocessing(size=64, resize=70, mean=[0.3, 0.4, 0.5], std=[0.1, 0.2, 0.3])
    assert Preprocessing(**metadata["preprocessing"]) == expected
    assert bingo.load_backbone(output).transform.preprocessing == expected


def test_the_head_of_a_teacher_is_left_out(teacher, tmp_path):
    network, path = teacher(**SPEC)
    export_safetensors(path, tmp_path / "network.safetensors", None)
    assert safetensors.torch.load_file(tmp_path / "network.safetensors").keys() == network.state_dict().keys()
