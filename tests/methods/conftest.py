import pytest
import torch
import torch.nn.functional as F

from bingo.models.backbone import build_backbone
from bingo.models.checkpoint import TeacherNetwork
from bingo.models.head import mlp_head
from bingo.study.sections import Backbone

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def teacher():
    """A frozen teacher whose batch-norm statistics are not those of its input."""
    torch.manual_seed(1)
    backbone = build_backbone(Backbone(architecture="resnet18", stem="small", width=1 / 32))
    head = mlp_head(backbone.dim, [24, 12])
    for _ in range(10):
        backbone(1.5 * torch.randn(16, 3, 16, 16) + 0.5)
    backbone.eval().requires_grad_(False)
    head.eval().requires_grad_(False)
    # A teacher that tells no two images apart would hide which view it was shown.
    assert torch.pdist(F.normalize(head(backbone(torch.randn(8, 3, 16, 16))), dim=1)).min() > 0.01
    return TeacherNetwork(backbone, head, "digest", {"method": "moco"})
