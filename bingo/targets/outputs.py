"""A frozen teacher's outputs in training: from the network, or from a file of the targets stage."""

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from bingo.artifacts import read_hdf5, require_same
from bingo.data.listing import Listing
from bingo.engine.learner import StepInput
from bingo.errors import BingoError
from bingo.methods.method import Layer, View
from bingo.models.batch_norm import without_running_statistics
from bingo.models.checkpoint import Teacher


class OnlineTeacher:
    """The teacher's network, which sees each view when training does."""

    def __init__(self, teacher: Teacher, batch_norm: Literal["eval", "batch"]) -> None:
        """Use ``teacher`` with batch-norm in eval mode, or with the statistics of each batch."""
        self.teacher, self.batch_norm = teacher, batch_norm

    def width(self, layer: Layer) -> int:
        """Return the width of the outputs."""
        return self.teacher.features if layer == "features" else self.teacher.dim

    def outputs(self, layer: Layer, view: View, batch: StepInput, images: Tensor | None) -> Tensor:
        """Return (B, D) for ``images`` (B, 3, S, S)."""
        assert images is not None
        network = network_of(self.teacher, layer)
        with nullcontext() if self.batch_norm == "eval" else without_running_statistics(network):
            outputs: Tensor = network(images)
        return outputs


def network_of(teacher: Teacher, layer: Layer) -> nn.Module:
    """Return the part of a teacher that ends in ``layer``."""
    return teacher.backbone if layer == "features" else nn.Sequential(teacher.backbone, teacher.head)


def dataset_name(layer: Layer, number: int) -> str:
    """Return the name of the HDF5 dataset (N, V, D) with the outputs of ``layer`` for teacher views ``number``."""
    return f"{layer}-{number}"


class StoredTeacher:
    """Outputs for V views of every image; epoch e takes those of view e modulo V.

    One view of all images is held in memory at a time: N x D float16 for each dataset in use.
    """

    def __init__(self, path: Path, views: int, device: torch.device) -> None:
        """Read from the file at ``path`` (which `require_targets` has checked), of whose views the first are used."""
        self.path, self.views, self.device = path, views, device
        with read_hdf5(path, "targets") as file:
            self._widths = {name: int(file[name].shape[2]) for name in file}
        self._held: dict[str, tuple[int, NDArray[np.float16]]] = {}

    def width(self, layer: Layer) -> int:
        """Return the width of the outputs."""
        return self._widths[dataset_name(layer, 0)]

    def outputs(self, layer: Layer, view: View, batch: StepInput, images: Tensor | None) -> Tensor:
        """Return (B, D) for the view of the batch's images at its epoch."""
        name, stored = dataset_name(layer, view.number), batch.epoch % self.views
        if name not in self._held or self._held[name][0] != stored:
            with read_hdf5(self.path, "targets") as file:
                self._held[name] = stored, file[name][:, stored]
        return torch.from_numpy(self._held[name][1][batch.rows[view.image]]).to(self.device).float()


def require_targets(
    path: Path, listing_path: Path, listing: Listing, views: int, names: Sequence[str], drawn: str
) -> tuple[str, str]:
    """Check that stored outputs belong to a training, and return their digest and their teacher's.

    Args:
        path: file of the targets stage.
        listing_path: where ``listing`` was read.
        listing: the training images.
        views: how many views are asked for.
        names: datasets that are asked for.
        drawn: how views are drawn and computed, as `describe_views` says it.

    Raises:
        BingoError: they are damaged, too few, or belong to other images or views.
    """
    with read_hdf5(path, "targets") as file:
        require_same(path, "dataset", file.attrs["dataset_digest"], listing.digest, listing_path)
        if file.attrs["drawn"] != drawn:
            raise BingoError(f"{path}: was made from other views ({file.attrs['drawn']}) than {drawn}; make it anew")
        for name in names:
            if name not in file or len(file[name]) != len(listing) or file[name].shape[1] < views:
                raise BingoError(f"{path}: does not hold {views} views of {name}; delete it and run again")
        return file.attrs["digest"], file.attrs["teacher_digest"]
