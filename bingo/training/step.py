"""What a method's loss sees of one training step."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from bingo.models.batch_norm import without_running_statistics
from bingo.philox import Stream, permutation
from bingo.study.method import Layer, Method, View
from bingo.training.device import autocast
from bingo.training.distributed import gather_rows, processes, rank


@dataclass(frozen=True)
class StepInput:
    """One batch of views, and where in training it stands."""

    seed: int
    epoch: int
    step: int
    """Step within the epoch, from 0."""
    images: dict[str, Tensor]
    """(B, 3, S, S) of each of the method's views that a network sees in training."""
    rows: dict[str, NDArray[np.int64]]
    """(B,) positions of the `anchor` images in the listing, and of the `positive` ones where there are bags."""


class TeacherOutputs(Protocol):
    """Where a method gets its teacher's outputs: a network, or a file of stored ones."""

    def width(self, layer: Layer) -> int:
        """Return the width of the outputs."""

    def outputs(self, layer: Layer, view: View, batch: StepInput, images: Tensor | None) -> Tensor:
        """Return (B, D), of any length and floating-point type, for the images that the view shows.

        Args:
            layer: which output of the teacher.
            view: which of the method's views.
            batch: the step; its `rows` say which images.
            images: (B, 3, S, S), None where the teacher does not run in training.
        """


class Networks(Protocol):
    """What a step needs of the learner."""

    method: Method
    teacher: TeacherOutputs | None
    backbone: nn.Module
    head: nn.Sequential
    momentum_encoder: nn.Sequential | None
    queues: nn.ModuleDict

    def update_momentum_encoder(self) -> None:
        """Move the parameters of the moving average towards the student's."""


class TrainingStep:
    """One training step as a method's loss sees it. All outputs are float32 unit vectors (B, D)."""

    def __init__(self, learner: Networks, batch: StepInput, dtype: torch.dtype) -> None:
        """Look at ``batch`` through the networks of ``learner``, which run in ``dtype``."""
        self._learner, self._batch, self._dtype = learner, batch, dtype
        self._views = learner.method.views()
        self._averaged = False
        self.seed, self.epoch, self.step, self.images = batch.seed, batch.epoch, batch.step, batch.images
        self.pending: dict[str, Tensor] = {}
        """What joins each queue after the step."""

    def student(self, images: Tensor, track_statistics: bool = True) -> Tensor:
        """Return the student's embeddings of ``images``; gradients flow.

        Args:
            images: (B, 3, S, S).
            track_statistics: whether they count for batch-norm's running statistics.
        """
        student = nn.Sequential(self._learner.backbone, self._learner.head)
        if track_statistics:
            return self._embed(student, images)
        with without_running_statistics(student):
            return self._embed(student, images)

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
        drawn = permutation(self.seed, Stream.SHUFFLE, self.epoch, len(everyones), self.step)
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
        device = next(self._learner.backbone.parameters()).device
        with autocast(self._dtype, device):
            outputs = source.outputs(self._learner.method.layer, self._views[view], self._batch, self.images.get(view))
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
