"""BINGO (Xu et al., ICLR 2022): anchor and bag member are pulled to the teacher's embedding of the anchor."""

import torch
import torch.nn.functional as F
from torch import Tensor

from bingo.config import Bingo
from bingo.losses.info_nce import info_nce, queue_logsumexp
from bingo.methods.method import Method, ViewRequest
from bingo.models.backbone import build_backbone
from bingo.models.checkpoint import Teacher
from bingo.models.head import mlp_head
from bingo.models.queue import Queue


class BingoMethod(Method):
    r"""Objective `paper`: :math:`L_{intra} + L_{inter}`.

    With anchor a, a member p of its bag, views t1, t2, t3, student s and teacher T:
    L_intra = CE(s(t1 a), T(t2 a)) and L_inter = CE(s(t3 p), T(t2 a)). The queue holds the teacher's embeddings of
    anchors; the teacher's batch-norm runs in eval mode.
    """

    views = (ViewRequest("anchor", 0), ViewRequest("anchor", 1), ViewRequest("positive", 2))

    def __init__(self, settings: Bingo, teacher: Teacher) -> None:
        """Build the student and the queue around a frozen teacher."""
        super().__init__()
        self.temperature = settings.temperature
        self.backbone = build_backbone(settings.backbone)
        self.head = mlp_head(self.backbone.dim, settings.head.hidden, teacher.dim)
        self.queue = Queue(settings.queue_size, teacher.dim)
        # In a tuple, so that the frozen teacher is no part of the state that is trained and saved.
        self._teacher = (teacher,)
        self._keys: Tensor | None = None

    def forward(self, views: list[Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Contrast the student's views of anchor and member with the teacher's view of the anchor."""
        anchor_view, teacher_view, member_view = views
        with torch.no_grad():
            teacher = self._teacher[0]
            keys = F.normalize(teacher.head(teacher.backbone(teacher_view)).float(), dim=1)  # (B, D)
        self._keys = keys
        terms = {}
        for name, view in (("intra", anchor_view), ("inter", member_view)):
            query = F.normalize(self.head(self.backbone(view)).float(), dim=1)  # (B, D)
            with torch.autocast(query.device.type, enabled=False):
                negatives = queue_logsumexp(query, self.queue.keys, self.temperature)
                terms[name] = info_nce(query, keys, negatives, self.temperature)
        loss = terms["intra"] + terms["inter"]
        return loss, {"loss": loss.detach(), **{name: term.detach() for name, term in terms.items()}}

    def after_step(self) -> None:
        """Enqueue the teacher's embeddings of the step's anchors."""
        assert self._keys is not None
        self.queue.enqueue(self._keys)
        self._keys = None
