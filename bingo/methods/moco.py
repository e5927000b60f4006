"""MoCo-v2 (Chen et al. 2020; facebookresearch/moco): a query against the momentum encoder's key and a queue."""

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bingo.config import Moco
from bingo.losses.info_nce import info_nce, queue_logsumexp
from bingo.methods.method import Method, ViewRequest
from bingo.models.backbone import build_backbone
from bingo.models.head import mlp_head
from bingo.models.queue import Queue


class MocoMethod(Method):
    """The momentum encoder's batch-norm runs in train mode; its running statistics are not averaged.

    MoCo shuffles keys between GPUs so that batch statistics do not tell which query belongs to them. One process
    has nobody to shuffle with.
    """

    views = (ViewRequest("anchor", 0), ViewRequest("anchor", 1))

    def __init__(self, settings: Moco) -> None:
        """Build query encoder, key encoder (a copy) and queue."""
        super().__init__()
        self.temperature = settings.temperature
        self.momentum = settings.key_momentum
        self.backbone = build_backbone(settings.backbone)
        features = self.backbone.dim
        self.head = mlp_head(features, settings.head.hidden or features, settings.head.dim)
        self.key_encoder = nn.Sequential(copy.deepcopy(self.backbone), copy.deepcopy(self.head))
        self.key_encoder.requires_grad_(False)
        self.queue = Queue(settings.queue_size, settings.head.dim)
        self._keys: Tensor | None = None

    def forward(self, views: list[Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Contrast the query of the first view with the key of the second."""
        query_view, key_view = views
        query = F.normalize(self.head(self.backbone(query_view)).float(), dim=1)  # (B, D)
        with torch.no_grad():
            self._update_key_encoder()
            keys = F.normalize(self.key_encoder(key_view).float(), dim=1)  # (B, D)
        self._keys = keys
        with torch.autocast(query.device.type, enabled=False):
            negatives = queue_logsumexp(query, self.queue.keys, self.temperature)
            loss = info_nce(query, keys, negatives, self.temperature)
        return loss, {"loss": loss.detach()}

    def after_step(self) -> None:
        """Enqueue the keys of the step."""
        assert self._keys is not None
        self.queue.enqueue(self._keys)
        self._keys = None

    def _update_key_encoder(self) -> None:
        """Move the key encoder's parameters towards the query encoder's, by 1 - momentum."""
        query = [*self.backbone.parameters(), *self.head.parameters()]
        for key, value in zip(self.key_encoder.parameters(), query, strict=True):
            key.lerp_(value, 1 - self.momentum)
