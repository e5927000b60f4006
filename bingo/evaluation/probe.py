"""The input of every protocol: a network, labelled images, and the images' features."""

from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from bingo.data.images import Images
from bingo.errors import BingoError
from bingo.progress import Progress
from bingo.study.method import View
from bingo.study.sections import Interpolation, Preprocessing
from bingo.training.batches import TrainingBatches
from bingo.training.distributed import processes, rank
from bingo.training.embed import embed
from bingo.views.recipes import Recipe


@dataclass(frozen=True)
class Measurement:
    """The result of a protocol; empty in all processes but rank 0."""

    metrics: dict[str, float]
    """Accuracies in percent."""
    facts: dict[str, float] = field(default_factory=dict)
    """Selected hyperparameters and counts."""


@dataclass(frozen=True)
class Probe:
    """A network and the images to evaluate it on."""

    name: str
    """Name in messages."""
    architecture: str
    backbone: nn.Module
    """Network on `device`, in eval mode."""
    train: Images
    """Labelled training images."""
    val: Images
    """Labelled validation images."""
    preprocessing: Preprocessing
    seed: int
    device: torch.device
    workers: int
    label_list: Path | None = None
    """File with the names of the images for semi-supervised training; None to draw them at random."""

    @property
    def classes(self) -> int:
        """Number of classes."""
        return len(self.train.listing.classes)

    @property
    def train_labels(self) -> Tensor:
        """(N,) int64 in [0, C)."""
        return torch.from_numpy(self.train.listing.label)

    @property
    def val_labels(self) -> Tensor:
        """(M,) int64 in [0, C)."""
        return torch.from_numpy(self.val.listing.label)

    def train_features(self, interpolation: Interpolation, whole: bool = False) -> Tensor:
        """Return the features of the training images' centre crops: float32 (N, D) on the CPU."""
        return self.outputs(self.backbone, self.train, "training", interpolation, whole)

    def val_features(self, interpolation: Interpolation, whole: bool = False) -> Tensor:
        """Return the features of the validation images' centre crops: float32 (M, D) on the CPU."""
        return self.outputs(self.backbone, self.val, "validation", interpolation, whole)

    def outputs(
        self, network: nn.Module, images: Images, title: str, interpolation: Interpolation, whole: bool = False
    ) -> Tensor:
        """Return a network's outputs for the centre crops of ``images``: float32 (N, D) on the CPU.

        Several processes share the images. Rank 0 gets the outputs; the others get an empty tensor.

        Args:
            network: network on `device`, in eval mode.
            images: images to embed, in this order.
            title: name in progress lines.
            interpolation: bilinear or bicubic.
            whole: ignore `resize`; resize the shorter side to `size`.

        Raises:
            BingoError: an image cannot be read, or an output is not finite.
        """
        preprocessing = self.preprocessing
        if whole:
            preprocessing = preprocessing.model_copy(update={"resize": preprocessing.size})
        with Progress(f"{self.name} {title} images", len(images.listing), "images") as progress:
            outputs, done = torch.empty(0, 0), 0
            for batch in embed(network, images, preprocessing, self.device, self.workers, interpolation):
                if done == 0:
                    outputs = torch.empty(len(images.listing), batch.shape[1])  # torch.cat would need a second copy
                outputs[done : done + len(batch)] = batch
                done += len(batch)
                progress.advance(len(batch))
        if not outputs.isfinite().all():
            raise BingoError(f"{self.name}: its outputs are not finite; train it with a lower learning rate")
        return outputs

    def training_batches(self, images: Images, recipe: Recipe, batch_size: int, drop_last: bool) -> TrainingBatches:
        """Return batches with one augmented view of each image, named `image`."""
        return TrainingBatches(
            images,
            {"image": View("anchor", 0)},
            recipe,
            self.preprocessing,
            min(batch_size, len(images.listing)),
            self.seed,
            bags=None,
            drop_last=drop_last,
            rank=rank(),
            processes=processes(),
        )
