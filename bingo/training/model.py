"""The networks and queues of a method's training."""

import copy

import torch
from torch import Tensor, nn

from bingo.models.backbone import build_backbone, feature_width
from bingo.models.head import mlp_head, output_width
from bingo.models.queue import Queue
from bingo.study.method import Method
from bingo.training.distributed import gather_rows
from bingo.training.step import StepInput, TeacherOutputs, TrainingStep


class TrainingModel(nn.Module):
    """Backbone, head, momentum encoder and queues. The frozen teacher is not a submodule."""

    def __init__(self, method: Method, teacher: TeacherOutputs | None) -> None:
        """Build the networks with random weights from torch's global generator.

        Args:
            method: settings of the method.
            teacher: outputs of the frozen teacher; None for methods without a teacher.
        """
        super().__init__()
        teacher_width = teacher.width(method.layer) if teacher is not None else 0
        self.method, self.teacher = method, teacher
        self.backbone = build_backbone(method.backbone)
        features = feature_width(self.backbone)
        self.head = mlp_head(features, method.head_widths(features, teacher_width))
        self.momentum_encoder: nn.Sequential | None = None
        if method.ema_momentum() is not None:
            self.momentum_encoder = nn.Sequential(copy.deepcopy(self.backbone), copy.deepcopy(self.head))
            self.momentum_encoder.requires_grad_(False)
        widths = {"student": output_width(self.head, features), "teacher": teacher_width}
        self.queues = nn.ModuleDict(
            {name: Queue(method.queue_size, widths[source]) for name, source in method.queues().items()}
        )
        self._pending: dict[str, Tensor] = {}

    def forward(self, batch: StepInput, dtype: torch.dtype) -> dict[str, Tensor]:
        """Return the loss and other scalars of one step. Networks run in ``dtype``, losses in float32."""
        step = TrainingStep(self, batch, dtype)
        values = self.method.loss(step)
        self._pending = step.pending
        return values

    def after_step(self) -> None:
        """Enqueue the keys of the step. Call once after each optimizer step."""
        for name, keys in self._pending.items():
            self.queues[name].enqueue(gather_rows(keys))  # type: ignore[operator]
        self._pending = {}

    @torch.no_grad()
    def update_momentum_encoder(self) -> None:
        """Update the momentum encoder: k = m k + (1 - m) q, for its parameters k and the student's q."""
        momentum = self.method.ema_momentum()
        assert momentum is not None
        assert self.momentum_encoder is not None
        student = [*self.backbone.parameters(), *self.head.parameters()]
        for param_k, param_q in zip(self.momentum_encoder.parameters(), student, strict=True):
            param_k.lerp_(param_q, 1 - momentum)
