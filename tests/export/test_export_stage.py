"""What an export refuses whatever the format."""

import pytest

from bingo.errors import BingoError
from bingo.stages.export import export_backbone


def test_a_network_is_not_replaced_by_its_own_export(student, tmp_path):
    _, model = student(architecture="resnet18")
    content = model.read_bytes()
    again = model.parent / ".." / model.parent.name / model.name
    with pytest.raises(BingoError, match="is the network itself"):
        export_backbone(model, again, "safetensors", None)
    assert model.read_bytes() == content
