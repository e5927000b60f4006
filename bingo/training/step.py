"""One training step, as a method's loss sees it."""

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
    """A batch of views and its position in the training."""

    seed: int
    epoch: int
    step: int
    """Step within the epoch, from 0."""
    images: dict[str, Tensor]
    """(B, 3, S, S) for each view of the method that a network sees during training."""
    rows: dict[str, NDArray[np.int64]]
    """(B,) positions in the listing: `anchor` and, with bags, `positive` images."""


class TeacherOutputs(Protocol):
    """The frozen teacher's outputs, from the network or from a file."""

    def width(self, layer: Layer) -> int:
        """Return the width of the outputs."""

    def outputs(self, layer: Layer, view: View, batch: StepInput, images: Tensor | None) -> Tensor:
        """Return the outputs (B, D) for a view, in any floating-point dtype and not normalised.

        Args:
            layer: features or projection.
            view: view of the method.
            batch: the step; its `rows` identify the images.
            images: (B, 3, S, S), or None if the outputs come from a file.
        """


class Networks(Protocol):
    """The networks and queues that a step uses."""

    method: Method
    teacher: TeacherOutputs | None
    backbone: nn.Module
    head: nn.Sequential
    momentum_encoder: nn.Sequential | None
    queues: nn.ModuleDict

    def update_momentum_encoder(self) -> None:
        """Move the momentum encoder's parameters towards the student's."""


class TrainingStep:
    """One training step, as a method's loss sees it. All embeddings are float32 unit vectors (B, D)."""

    def __init__(self, networks: Networks, batch: StepInput, dtype: torch.dtype) -> None:
        """Prepare a step of ``networks`` on ``batch``; the networks run in ``dtype``."""
        self._networks, self._batch, self._dtype = networks, batch, dtype
        self._views = networks.method.views()
        self._momentum_updated = False
        self.seed, self.epoch, self.step, self.images = batch.seed, batch.epoch, batch.step, batch.images
        self.pending: dict[str, Tensor] = {}
        """Keys to enqueue after the step, by queue."""

    def student(self, images: Tensor, track_statistics: bool = True) -> Tensor:
        """Return the student's embeddings of ``images``; gradients flow.

        Args:
            images: (B, 3, S, S).
            track_statistics: whether to update batch norm's running statistics.
        """
        student = nn.Sequential(self._networks.backbone, self._networks.head)
        if track_statistics:
            return self._embed(student, images)
        with without_running_statistics(student):
            return self._embed(student, images)

    @torch.no_grad()
    def momentum(self, images: Tensor) -> Tensor:
        """Return the momentum encoder's embeddings of ``images`` (B, 3, S, S). The first call updates the encoder.

        Several processes without SyncBN exchange images first (MoCo's shuffle-BN). Otherwise batch statistics would
        reveal which keys belong to which queries.
        """
        encoder = self._networks.momentum_encoder
        assert encoder is not None
        if not self._momentum_updated:
            self._networks.update_momentum_encoder()
            self._momentum_updated = True
        if processes() == 1 or self._networks.method.training.sync_batch_norm:
            return self._embed(encoder, images)
        all_images = gather_rows(images)  # (B, 3, S, S) from (b, 3, S, S) per process
        shuffle = permutation(self.seed, Stream.SHUFFLE, self.epoch, len(all_images), self.step)
        order = torch.from_numpy(shuffle).to(images.device)  # (B,)
        local = slice(rank() * len(images), (rank() + 1) * len(images))
        shuffled = all_images[order[local]].contiguous(memory_format=torch.channels_last)  # (b, 3, S, S)
        keys = gather_rows(self._embed(encoder, shuffled))  # (B, D)
        return keys[order.argsort()[local]]  # (b, D)

    @torch.no_grad()
    def teacher(self, view: str) -> Tensor:
        """Return the frozen teacher's embeddings of the view ``view``."""
        teacher = self._networks.teacher
        assert teacher is not None
        layer, device = self._networks.method.layer, next(self._networks.backbone.parameters()).device
        with autocast(self._dtype, device):
            outputs = teacher.outputs(layer, self._views[view], self._batch, self.images.get(view))  # (B, D)
        return F.normalize(outputs.float(), dim=1)

    def queue(self, name: str) -> Tensor:
        """Return the contents (Q, D) of a queue, without the keys of this step."""
        keys: Tensor = self._networks.queues[name].keys  # type: ignore[assignment]
        return keys

    def enqueue(self, name: str, keys: Tensor) -> None:
        """Replace the oldest entries of a queue by ``keys`` (B, D) after the step."""
        self.pending[name] = keys.detach()

    def _embed(self, network: nn.Module, images: Tensor) -> Tensor:
        with autocast(self._dtype, images.device):
            outputs = network(images)  # (B, D)
        return F.normalize(outputs.float(), dim=1)
