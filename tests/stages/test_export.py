"""What an export refuses whatever the format."""

import pytest

from bingo.errors import BingoError
from bingo.study.jobs import ExportJob

from ..stage import run_stage


def test_a_network_is_not_replaced_by_its_own_export(student, tmp_path):
    _, model = student(architecture="resnet18")
    content = model.read_bytes()
    again = model.parent / ".." / model.parent.name / model.name
    with pytest.raises(BingoError, match="is the network itself"):
        run_stage(ExportJob, to="safetensors", resize=None, weights=model, output=again)
    assert model.read_bytes() == content
