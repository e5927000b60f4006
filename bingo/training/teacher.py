"""A frozen teacher's outputs during training, from the network or from a file of the targets stage."""

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
    """Runs the teacher's network during training."""

    def __init__(self, teacher: TeacherNetwork, batch_norm: Literal["eval", "batch"]) -> None:
        """Use ``teacher`` with its batch norm in eval mode or with batch statistics.

        In eval mode, the first step copies the weights. Later changes to ``teacher`` have no effect.
        """
        self.teacher, self.batch_norm = teacher, batch_norm
        self._networks: dict[Layer, nn.Module] = {}

    def width(self, layer: Layer) -> int:
        """Return the width of the outputs."""
        return self.teacher.features if layer == "features" else self.teacher.dim

    def outputs(self, layer: Layer, view: View, batch: StepInput, images: Tensor | None) -> Tensor:
        """Return the outputs (B, D) for ``images`` (B, 3, S, S)."""
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
    """Return the part of a teacher up to ``layer``."""
    return teacher.backbone if layer == "features" else nn.Sequential(teacher.backbone, teacher.head)


class StoredTeacher:
    """Reads stored outputs for V views of every image; epoch e uses view e mod V.

    Each process holds one view of all images in memory: (N, D) float16 per file.
    """

    def __init__(self, files: Mapping[int, Path], views: int, device: torch.device) -> None:
        """Read from files of the targets stage; check them with `require_targets` first.

        Args:
            files: file of each view slot.
            views: number of stored views V.
            device: device of the outputs.
        """
        self.files, self.views, self.device = files, views, device
        self._cache: dict[int, tuple[int, NDArray[np.float16]]] = {}
        """View number and outputs (N, D) of each slot."""

    def width(self, layer: Layer) -> int:
        """Return the width of the outputs."""
        with read_hdf5(next(iter(self.files.values())), "targets") as file:
            return int(file["target"].shape[2])

    def outputs(self, layer: Layer, view: View, batch: StepInput, images: Tensor | None) -> Tensor:
        """Return the outputs (B, D) for the batch's images, for the view of its epoch."""
        number = batch.epoch % self.views
        if view.slot not in self._cache or self._cache[view.slot][0] != number:
            self._cache.pop(view.slot, None)  # frees the previous view before the next one is read
            with read_hdf5(self.files[view.slot], "targets") as file:
                outputs = file["target"][:, number]  # (N, D)
            if not np.isfinite(outputs).all():
                raise BingoError(f"{self.files[view.slot]}: holds values that are not finite; delete it and run again")
            self._cache[view.slot] = number, outputs
        return to_device(self._cache[view.slot][1][batch.rows[view.image]], self.device)


def to_device(outputs: NDArray[np.float16], device: torch.device) -> Tensor:
    """Copy float16 ``outputs`` (B, D) to ``device`` as float32; asynchronously to a GPU."""
    tensor = torch.from_numpy(outputs)
    return (tensor.pin_memory() if device.type == "cuda" else tensor).to(device, non_blocking=True).float()


def require_targets(path: Path, listing_path: Path, listing: Listing, drawn: str) -> tuple[str, str]:
    """Check that stored outputs match a training; return their digest and the teacher's digest.

    Args:
        path: file of the targets stage.
        listing_path: file of ``listing``.
        listing: the training images.
        drawn: how views are drawn and computed, from `describe_targets`.

    Raises:
        BingoError: the file is damaged, or belongs to other images or views.
    """
    with read_hdf5(path, "targets") as file:
        require_same(path, "dataset", file.attrs["dataset_digest"], listing.digest, listing_path)
        if file.attrs["drawn"] != drawn:
            raise BingoError(
                f"{path}: was computed with other settings ({file.attrs['drawn']}), but {drawn} is needed; "
                "delete it and run again"
            )
        target = file["target"]
        shape = (len(listing), json.loads(drawn)["views"])
        if target.ndim != 3 or target.shape[:2] != shape or target.dtype != np.float16:
            raise BingoError(f"{path}: holds {target.dtype} {target.shape} for {shape} views; delete it and run again")
        return file.attrs["digest"], file.attrs["teacher_digest"]


def describe_targets(job: TargetsJob, device: torch.device) -> str:
    """Return, as canonical JSON, the settings that stored outputs depend on (besides teacher and images)."""
    dtype = str(resolve_precision(job.precision, device)).removeprefix("torch.")
    settings = {name: value for name, value in job.settings.items() if name != "version"}
    return json.dumps({**settings, "precision": dtype}, sort_keys=True)
