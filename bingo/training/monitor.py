"""Watching a training: what TensorBoard, the log and the bar show of it. Nothing here changes what is trained."""

import logging
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from bingo.philox import Stream, permutation
from bingo.study.sections import Preprocessing, Training
from bingo.training.batches import TrainingBatches
from bingo.training.embed import CentreViews, embed_alone
from bingo.training.metrics import accuracy, class_votes, majority_weights
from bingo.training.model import TrainingModel
from bingo.training.state import LogRow, TrainingPosition

log = logging.getLogger(__name__)

EVALUATIONS = 20
"""How often, about, a training's networks are looked at: a look costs a forward pass over the watched images."""
MIN_IMAGES, MAX_IMAGES = 512, 2048
"""Watched images: a tenth of the training images within these bounds."""
COLLAPSE_SIMILARITY = 0.95
"""Mean pairwise similarity of projections above which different images count as the same one: that of a sound training
is far below, of a collapsed one 1."""
NEIGHBOURS = 10
"""Neighbours that vote, as in the protocol `knn-10`."""
WARMUP_STEPS = 200
"""Steps before which no collapse is spoken of: projections are alike in a network that has only begun, up to 1.0."""
LOSS_RISE = 1.5
"""How many times its lowest value a loss exceeds when it rises: between epochs it varies by some percent."""


def monitored_rows(count: int) -> NDArray[np.int64]:
    """Return which of ``count`` training images are watched, in random order: int64 (n,), the same for every seed."""
    return permutation(0, Stream.MONITOR, 0, count)[: min(max(MIN_IMAGES, count // 10), MAX_IMAGES)]


def is_due(epoch: int, epochs: int) -> bool:
    """Tell whether the networks are looked at after ``epoch``, counted from 1: every 20th part, and the last one."""
    return epoch == epochs or epoch % max(1, epochs // EVALUATIONS) == 0


def mean_similarity(units: Tensor) -> float:
    r"""Return the mean cosine similarity of all pairs of unit vectors (N, D), each with itself included.

    It is :math:`\frac1{N^2} \sum_{ij} u_i \cdot u_j = \lVert \frac1N \sum_i u_i \rVert^2`, in [0, 1]: 1 where all are
    the same, 1/N where they are orthogonal.
    """
    return float(units.float().mean(0).square().sum())


def relative_deviation(units: Tensor) -> float:
    r"""Return the standard deviation of unit vectors (N, D) per dimension, averaged, times :math:`\sqrt D`.

    About 1 where they are spread evenly over the sphere, 0 where all are the same (SimSiam, Chen & He 2021, figure 2).
    """
    return float(units.float().std(0, correction=0).mean()) * math.sqrt(units.shape[1])


def held_out_accuracy(units: Tensor, labels: Tensor, classes: int) -> float | None:
    """Return top-1 in percent of `knn-10` on the first quarter of the images, by their neighbours among the others.

    None where too few of them have labels. Neighbours are not found by faiss, which would take a GPU's memory from the
    training.

    Args:
        units: (n, D) float32 unit vectors.
        labels: (n,) int64, -1 where unknown.
        classes: number of classes.
    """
    known, first = labels >= 0, len(labels) // 4
    queries, bank = units[:first][known[:first]], units[first:][known[first:]]
    if len(queries) == 0 or len(bank) < NEIGHBOURS:
        return None
    similarity, index = (queries @ bank.T).topk(NEIGHBOURS)
    asked, voting = labels[:first][known[:first]], labels[first:][known[first:]]
    return accuracy(class_votes(voting[index], majority_weights(similarity.double()), classes), asked)["top1"]


def lowest_before_rise(rows: Sequence[LogRow], filled: int) -> LogRow | None:
    """Return the epoch with the lowest loss where the last one's is `LOSS_RISE` times as high, else None.

    It is asked from the third epoch on. The first ``filled`` epochs do not count, in which random vectors are among the
    negatives: they are easily told apart, so that the loss rises as embeddings take their place (MoCo). Nor do epochs
    whose loss had other terms. Of losses that are negative, multiples mean nothing.
    """
    alike = [row for row in rows[filled:] if row.keys() == rows[-1].keys()]
    if len(rows) < 3 or not alike:
        return None
    lowest = min(alike, key=lambda row: row["loss"])
    return lowest if rows[-1]["loss"] > LOSS_RISE * lowest["loss"] > 0 else None


def is_collapsed(similarity: float, steps: int) -> bool:
    """Tell whether projections with this mean pairwise similarity, after so many steps, are a collapse."""
    return similarity > COLLAPSE_SIMILARITY and steps >= WARMUP_STEPS


@contextmanager
def in_eval_mode(network: nn.Module) -> Iterator[None]:
    """Put a network into eval mode within the block, and each part of it back into its own after that."""
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


class EventWriter:
    """A training's scalars for TensorBoard; where they cannot be written, says so once and writes no more."""

    def __init__(self, folder: Path, epoch: int) -> None:
        """Go on with ``epoch``, counted from 1: TensorBoard no longer shows what ``folder`` holds from it on.

        With the first epoch, the folder's old event files are removed.
        """
        from torch.utils.tensorboard import SummaryWriter

        self._folder = folder
        self._writer: SummaryWriter | None = None
        try:
            for old in folder.glob("events.out.tfevents.*") if epoch == 1 else ():
                old.unlink()
            self._writer = SummaryWriter(str(folder), purge_step=epoch)
        except OSError as error:
            self._give_up(error)

    def write(self, epoch: int, scalars: Mapping[str, float]) -> None:
        """Write the scalars of an epoch, counted from 1, by their tags."""
        if self._writer is None:
            return
        try:
            for tag, value in scalars.items():
                self._writer.add_scalar(tag, value, epoch)
            self._writer.flush()
        except OSError as error:  # of the writer's thread, which tells of it too
            self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        log.warning("--events: %s cannot be written (%s); going on without it", self._folder, error.strerror)
        self._writer = None


class Monitor:
    """Looks at a learner after its epochs: writes events, warns, and says at the end what came of it.

    It watches some training images by their centre views, whole on the shorter side. Of several processes the first
    one alone has a watch.
    """

    def __init__(
        self,
        learner: TrainingModel,
        data: TrainingBatches,
        training: Training,
        device: torch.device,
        workers: int,
        title: str,
        events: Path | None,
    ) -> None:
        """Monitor ``learner``, on ``device``, being trained on ``data``; ``events`` is TensorBoard's folder, if any."""
        self._learner, self._data, self._training = learner, data, training
        self._device, self._workers, self._title = device, workers, title
        self._folder = events
        self._events: EventWriter | None = None
        listing = data.images.listing
        rows = monitored_rows(len(listing))
        seen_whole = data.preprocessing.model_dump() | {"resize": data.preprocessing.size}
        self._views = CentreViews(data.images, Preprocessing(**seen_whole), "bilinear", rows)
        self._labels, self._classes = torch.from_numpy(listing.label[rows]), len(listing.classes)
        self._images_per_epoch = data.steps * data.batch_size
        self._metrics: dict[str, float] = {}
        self._warned: set[str] = set()
        self._first_epoch, self._images, self._seconds = 0, 0, 0.0
        """Epochs of earlier processes, and what this one has trained."""
        self._coming, self._since = 0, 0.0
        """Images of the epoch under way that this process trains, and since when."""

    def begin(self, at: TrainingPosition) -> None:
        """Start where the training starts, or goes on."""
        if self._folder is not None:
            self._events = EventWriter(self._folder, len(at.rows) + 1)
        self._first_epoch, self._coming = len(at.rows), self._images_per_epoch - at.step * self._data.batch_size
        size, count = self._learner.method.queue_size, len(self._data.images.listing)
        if self._learner.method.queues() and size > count:
            message = "queue_size %s is more than the %s training images, so each is compared with itself; lower it"
            self._warn("queue", message, f"{size:,}", f"{count:,}")
        self._since = time.monotonic()

    def after_epoch(self, rows: list[LogRow]) -> str:
        """Look at the learner after the last epoch of ``rows``; return what to show beside the bar."""
        seconds, epoch, row = time.monotonic() - self._since, len(rows), rows[-1]
        scalars = {f"loss/{name}": value for name, value in row.items() if name not in ("epoch", "lr")}
        scalars |= {"training/lr": row["lr"], "training/images_per_second": self._coming / max(seconds, 1e-9)}
        if is_due(epoch, self._training.epochs):
            self._metrics = self._evaluate(epoch)
            scalars |= self._metrics
            self._warn_of_collapse(epoch)
        if self._events is not None:
            self._events.write(epoch, scalars)
        self._warn_of_rise(rows)
        self._images, self._seconds = self._images + self._coming, self._seconds + seconds
        self._coming, self._since = self._images_per_epoch, time.monotonic()
        return f", kNN {self._metrics['knn/top1']:.1f} %" if "knn/top1" in self._metrics else ""

    def summary(self, rows: list[LogRow]) -> str:
        """Say in a line what came of the training, which has these ``rows``."""
        parts = [f"{self._title}: {len(rows)} epochs"]
        if self._images:
            time_taken = f"{int(self._seconds) // 60}:{int(self._seconds) % 60:02d}"
            resumed = f", {len(rows) - self._first_epoch} of them now" if self._first_epoch else ""
            parts[0] += f"{resumed} in {time_taken} at {self._images / self._seconds:,.0f} images/s"
        parts.append(f"loss {rows[0]['loss']:.4g} -> {rows[-1]['loss']:.4g}")
        if "knn/top1" in self._metrics:
            parts.append(f"kNN top-1 on training images {self._metrics['knn/top1']:.1f} %")
        if self._metrics:
            parts.append(f"mean similarity of projections {self._metrics['projections/similarity']:.3f}")
        return ", ".join(parts)

    def _evaluate(self, epoch: int) -> dict[str, float]:
        """Return what the networks make of the watched images, and what is in the queues, by TensorBoard's tags."""
        learner = self._learner
        with in_eval_mode(learner), torch.inference_mode():
            batches = embed_alone(learner.backbone, self._views, range(len(self._views)), self._device, self._workers)
            features = torch.cat(list(batches))  # (n, D)
            projections = learner.head(features.to(self._device))  # (n, d)
        seen: dict[str, float] = {}
        for name, outputs in (("projections", projections), ("features", features)):
            units = F.normalize(outputs.float(), dim=1)
            seen |= {f"{name}/similarity": mean_similarity(units), f"{name}/deviation": relative_deviation(units)}
        accuracy = held_out_accuracy(F.normalize(features, dim=1), self._labels, self._classes)
        if accuracy is not None:
            seen["knn/top1"] = accuracy
        for name in learner.method.queues():
            seen[f"queue/{name}_similarity"] = mean_similarity(learner.queues[name].keys)  # type: ignore[arg-type]
        oldest = min(learner.method.queue_size, epoch * self._images_per_epoch)
        return seen | {"queue/epochs": oldest / self._images_per_epoch}

    def _warn_of_collapse(self, epoch: int) -> None:
        similarity = self._metrics["projections/similarity"]
        if not is_collapsed(similarity, epoch * self._data.steps):
            return
        taught = [name for name, source in self._learner.method.queues().items() if source == "teacher"]
        remedy = f"lower the learning rate, training.lr, now {self._training.lr}, or train for more epochs"
        if any(self._metrics[f"queue/{name}_similarity"] > COLLAPSE_SIMILARITY for name in taught):
            remedy = "so are its teacher's outputs: take another teacher"
        message = "after epoch %d the projections of different images are nearly the same (mean similarity %.3f); %s"
        self._warn("collapse", message, epoch, similarity, remedy)

    def _warn_of_rise(self, rows: list[LogRow]) -> None:
        lowest = lowest_before_rise(rows, math.ceil(self._learner.method.queue_size / self._images_per_epoch))
        if lowest is not None:
            message = (
                "the loss rises: %.4g in epoch %d after %.4g in epoch %d; lower the learning rate, training.lr, now %g"
            )
            now = rows[-1]["loss"], len(rows), lowest["loss"], int(lowest["epoch"]), self._training.lr
            self._warn("rise", message, *now)

    def _warn(self, kind: str, message: str, *facts: object) -> None:
        """Say something, unless something of its kind has been said."""
        if kind not in self._warned:
            self._warned.add(kind)
            log.warning(f"%s: {message}", self._title, *facts)
