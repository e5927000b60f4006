"""A frozen teacher's outputs in training: from the network, or from a file of the targets stage."""

import json
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from bingo.artifacts.hdf5 import read_hdf5
from bingo.artifacts.provenance import require_same
from bingo.data.listing import Listing
from bingo.errors import BingoError
from bingo.models.batch_norm import without_running_statistics
from bingo.models.batch_norm_folding import fold_batch_norm
from bingo.models.checkpoint import TeacherNetwork
from bingo.study.jobs import TargetsJob
from bingo.study.method import Layer, View
from bingo.training.device import resolve_precision
from bingo.training.step import StepInput


class OnlineTeacher:
    """The teacher's network, which sees each view when training does."""

    def __init__(self, teacher: TeacherNetwork, batch_norm: Literal["eval", "batch"]) -> None:
        """Use ``teacher``, as it is at the first step; its batch-norm in eval mode, or with each batch's statistics."""
        self.teacher, self.batch_norm = teacher, batch_norm
        self._networks: dict[Layer, nn.Module] = {}

    def width(self, layer: Layer) -> int:
        """Return the width of the outputs."""
        return self.teacher.features if layer == "features" else self.teacher.dim

    def outputs(self, layer: Layer, view: View, batch: StepInput, images: Tensor | None) -> Tensor:
        """Return (B, D) for ``images`` (B, 3, S, S)."""
        assert images is not None
        network = self._network(layer)
        with nullcontext() if self.batch_norm == "eval" else without_running_statistics(network):
            outputs: Tensor = network(images)
        return outputs

    def _network(self, layer: Layer) -> nn.Module:
        if layer not in self._networks:
            network = network_of(self.teacher, layer)
            self._networks[layer] = fold_batch_norm(network) if self.batch_norm == "eval" else network
        return self._networks[layer]


def network_of(teacher: TeacherNetwork, layer: Layer) -> nn.Module:
    """Return the part of a teacher that ends in ``layer``."""
    return teacher.backbone if layer == "features" else nn.Sequential(teacher.backbone, teacher.head)


class StoredTeacher:
    """Outputs for V views of every image; epoch e takes those of view e modulo V.

    One view of all images is held in memory at a time, by every process: N x D float16 for each file.
    """

    def __init__(self, files: Mapping[int, Path], views: int, device: torch.device) -> None:
        """Read from files of the targets stage (which `require_targets` has checked).

        Args:
            files: by number among the teacher views of an epoch.
            views: V.
            device: where outputs are wanted.
        """
        self.files, self.views, self.device = files, views, device
        self._held: dict[int, tuple[int, NDArray[np.float16]]] = {}

    def width(self, layer: Layer) -> int:
        """Return the width of the outputs."""
        with read_hdf5(next(iter(self.files.values())), "targets") as file:
            return int(file["target"].shape[2])

    def outputs(self, layer: Layer, view: View, batch: StepInput, images: Tensor | None) -> Tensor:
        """Return (B, D) for the view of the batch's images at its epoch."""
        stored = batch.epoch % self.views
        if view.slot not in self._held or self._held[view.slot][0] != stored:
            self._held.pop(view.slot, None)  # not both in memory
            with read_hdf5(self.files[view.slot], "targets") as file:
                held = file["target"][:, stored]
            if not np.isfinite(held).all():
                raise BingoError(f"{self.files[view.slot]}: holds values that are not finite; delete it")
            self._held[view.slot] = stored, held
        return to_device(self._held[view.slot][1][batch.rows[view.image]], self.device)


def to_device(outputs: NDArray[np.float16], device: torch.device) -> Tensor:
    """Return float16 ``outputs`` (B, D) as float32 on ``device``, without waiting for what a GPU does before."""
    held = torch.from_numpy(outputs)
    return (held.pin_memory() if device.type == "cuda" else held).to(device, non_blocking=True).float()


def require_targets(path: Path, listing_path: Path, listing: Listing, drawn: str) -> tuple[str, str]:
    """Check that stored outputs belong to a training, and return their digest and their teacher's.

    Args:
        path: file of the targets stage.
        listing_path: where ``listing`` was read.
        listing: the training images.
        drawn: how views are drawn and computed, as `describe_targets` says it.

    Raises:
        BingoError: they are damaged, or belong to other images or views.
    """
    with read_hdf5(path, "targets") as file:
        require_same(path, "dataset", file.attrs["dataset_digest"], listing.digest, listing_path)
        if file.attrs["drawn"] != drawn:
            raise BingoError(f"{path}: holds other outputs ({file.attrs['drawn']}) than {drawn}; make it anew")
        target = file["target"]
        shape = (len(listing), json.loads(drawn)["views"])
        if target.ndim != 3 or target.shape[:2] != shape or target.dtype != np.float16:
            raise BingoError(f"{path}: holds {target.dtype} {target.shape} for {shape} views; delete it and run again")
        return file.attrs["digest"], file.attrs["teacher_digest"]


def describe_targets(job: TargetsJob, device: torch.device) -> str:
    """Return as canonical JSON on what stored outputs depend, beside teacher and images."""
    dtype = str(resolve_precision(job.precision, device)).removeprefix("torch.")
    drawn = {name: value for name, value in job.settings.items() if name != "version"}
    return json.dumps({**drawn, "precision": dtype}, sort_keys=True)
