import pytest
import torch

from bingo.config import Backbone
from bingo.models.backbone import build_backbone
from bingo.models.checkpoint import Teacher
from bingo.models.head import mlp_head

torch.set_num_threads(1)


@pytest.fixture
def teacher():
    """A frozen teacher whose batch-norm statistics are far from those of its input."""
    torch.manual_seed(1)
    backbone = build_backbone(Backbone(architecture="resnet18", stem="small", width=1 / 32))
    head = mlp_head(backbone.dim, 24, 12)
    for name, value in backbone.state_dict().items():
        if name.endswith(("running_mean", "running_var")):
            value.uniform_(0.5, 1.5)
    return Teacher(
        backbone.eval().requires_grad_(False), head.eval().requires_grad_(False), "digest", {"method": "moco"}
    )
