"""What a method trains and keeps between steps, and what its loss sees of one step."""

import copy
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from bingo.models.backbone import build_backbone, feature_width
from bingo.models.batch_norm import without_running_statistics
from bingo.models.head import mlp_head, output_width
from bingo.models.queue import Queue
from bingo.philox import Stream, permutation
from bingo.study.method import Layer, Method, View
from bingo.training.device import autocast
from bingo.training.distributed import gather_rows, processes, rank


class TeacherOutputs(Protocol):
    """Where a method gets its teacher's outputs: a network, or a file of stored ones."""

    def width(self, layer: Layer) -> int:
        """Return the width of the outputs."""

    def outputs(self, layer: Layer, view: View, batch: "StepInput", images: Tensor | None) -> Tensor:
        """Return (B, D), of any length and floating-point type, for the images that the view shows.

        Args:
            layer: which output of the teacher.
            view: which of the method's views.
            batch: the step; its `rows` say which images.
            images: (B, 3, S, S), None where the teacher does not run in training.
        """


@dataclass(frozen=True)
class StepInput:
    """One batch of views, and where in training it stands."""

    seed: int
    epoch: int
    number: int
    """Step within the epoch, from 0."""
    images: dict[str, Tensor]
    """(B, 3, S, S) of each of the method's views that a network sees in training."""
    rows: dict[str, NDArray[np.int64]]
    """(B,) positions of the `anchor` images in the listing, and of the `positive` ones where there are bags."""


class Learner(nn.Module):
    """Backbone, head, their moving average and queues: the state of a method's training.

    The frozen teacher is no part of it.
    """

    def __init__(self, method: Method, teacher: TeacherOutputs | None) -> None:
        """Build the networks with fresh random weights from torch's generator.

        Args:
            method: settings of the method.
            teacher: outputs of the frozen teacher of a method that distils.
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
        """Return the method's loss and log values for one step; networks run in ``dtype``, losses in float32."""
        step = Step(self, batch, dtype)
        values = self.method.loss(step)
        self._pending = step.pending
        return values

    def after_step(self) -> None:
        """Enqueue what the step's loss left for the queues; called once after each optimizer step."""
        for name, keys in self._pending.items():
            self.queues[name].enqueue(gather_rows(keys))  # type: ignore[operator]
        self._pending = {}

    @torch.no_grad()
    def update_momentum_encoder(self) -> None:
        """Move the parameters of the moving average towards the student's, by 1 - momentum."""
        momentum = self.method.ema_momentum()
        assert momentum is not None
        assert self.momentum_encoder is not None
        student = [*self.backbone.parameters(), *self.head.parameters()]
        for average, value in zip(self.momentum_encoder.parameters(), student, strict=True):
            average.lerp_(value, 1 - momentum)


class Step:
    """One training step as a method's loss sees it. All outputs are float32 unit vectors (B, D)."""

    def __init__(self, learner: Learner, batch: StepInput, dtype: torch.dtype) -> None:
        """Look at ``batch`` through the networks of ``learner``, which run in ``dtype``."""
        self._learner, self._batch, self._dtype = learner, batch, dtype
        self._views = learner.method.views()
        self._averaged = False
        self.seed, self.epoch, self.number, self.images = batch.seed, batch.epoch, batch.number, batch.images
        self.pending: dict[str, Tensor] = {}

    def student(self, images: Tensor, track_statistics: bool = True) -> Tensor:
        """Return the student's embeddings of ``images``; gradients flow.

        Args:
            images: (B, 3, S, S).
            track_statistics: whether they count for batch-norm's running statistics.
        """
        backbone, head = self._learner.backbone, self._learner.head
        if track_statistics:
            return self._embed(nn.Sequential(backbone, head), images)
        with without_running_statistics(backbone), without_running_statistics(head):
            return self._embed(nn.Sequential(backbone, head), images)

    @torch.no_grad()
    def momentum(self, images: Tensor) -> Tensor:
        """Return the moving average's embeddings of ``images``; the first call of a step moves the average first.

        Processes that compute batch statistics of their own exchange images for this (MoCo's shuffle-BN), or the
        statistics would tell which keys belong to which queries.
        """
        encoder = self._learner.momentum_encoder
        assert encoder is not None
        if not self._averaged:
            self._learner.update_momentum_encoder()
            self._averaged = True
        if processes() == 1 or self._learner.method.training.sync_batch_norm:
            return self._embed(encoder, images)
        everyones = gather_rows(images)  # (B, 3, S, S)
        drawn = permutation(self.seed, Stream.SHUFFLE, self.epoch, len(everyones), self.number)
        order = torch.from_numpy(drawn).to(images.device)
        own = slice(rank() * len(images), (rank() + 1) * len(images))
        shuffled = everyones[order[own]].contiguous(memory_format=torch.channels_last)
        keys = gather_rows(self._embed(encoder, shuffled))  # (B, D)
        return keys[order.argsort()[own]]

    @torch.no_grad()
    def teacher(self, view: str) -> Tensor:
        """Return the frozen teacher's outputs for the view of that name."""
        source = self._learner.teacher
        assert source is not None
        images = self.images.get(view)
        with autocast(self._dtype, _device_of(self._learner)):
            outputs = source.outputs(self._learner.method.layer, self._views[view], self._batch, images)
        return F.normalize(outputs.float(), dim=1)

    def queue(self, name: str) -> Tensor:
        """Return the queue of that name as it was before the step: (Q, D)."""
        keys: Tensor = self._learner.queues[name].keys  # type: ignore[assignment]
        return keys

    def enqueue(self, name: str, keys: Tensor) -> None:
        """Let ``keys`` (B, D) replace the oldest entries of a queue after the step."""
        self.pending[name] = keys.detach()

    def _embed(self, network: nn.Module, images: Tensor) -> Tensor:
        with autocast(self._dtype, images.device):
            outputs = network(images)
        return F.normalize(outputs.float(), dim=1)


def _device_of(learner: Learner) -> torch.device:
    return next(learner.parameters()).device
