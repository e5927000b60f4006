"""A training step of MoCo-v2 with lightly, as in its documentation's example for plain PyTorch."""

import copy

import torch
from lightly.loss import NTXentLoss
from lightly.models.modules import MoCoProjectionHead
from lightly.models.utils import deactivate_requires_grad, update_momentum
from torch import Tensor, nn

from bingo.training.device import autocast


class LightlyStep(nn.Module):
    """One training step; the loss value is not read."""

    def __init__(
        self, backbone: nn.Module, queue_size: int, temperature: float, momentum: float, lr: float, dtype: torch.dtype
    ) -> None:
        super().__init__()
        width = int(backbone.dim)  # type: ignore[arg-type]
        self.backbone, self.projection_head = backbone, MoCoProjectionHead(width, width, 128)
        self.backbone_momentum = copy.deepcopy(self.backbone)
        self.projection_head_momentum = copy.deepcopy(self.projection_head)
        deactivate_requires_grad(self.backbone_momentum)
        deactivate_requires_grad(self.projection_head_momentum)
        self.criterion = NTXentLoss(temperature=temperature, memory_bank_size=(queue_size, 128))
        self.momentum, self.dtype = momentum, dtype
        self.optimizer = torch.optim.SGD(
            [p for p in self.parameters() if p.requires_grad], lr=lr, momentum=0.9, weight_decay=1e-4
        )

    def forward(self, x_query: Tensor, x_key: Tensor) -> None:
        """Take a step on two views (B, 3, S, S)."""
        update_momentum(self.backbone, self.backbone_momentum, m=self.momentum)
        update_momentum(self.projection_head, self.projection_head_momentum, m=self.momentum)
        with autocast(self.dtype, x_query.device):
            query = self.projection_head(self.backbone(x_query).flatten(start_dim=1))
            with torch.no_grad():
                key = self.projection_head_momentum(self.backbone_momentum(x_key).flatten(start_dim=1)).detach()
            loss = self.criterion(query, key)
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
