"""Monitor a training: TensorBoard events, warnings, and metrics next to the progress bar. Does not change training."""

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
"""Approximate number of evaluations per training; each costs a forward pass over the monitored images."""
MIN_IMAGES, MAX_IMAGES = 512, 2048
"""Bounds of the number of monitored images, which is otherwise 10 % of the training images."""
COLLAPSE_SIMILARITY = 0.95
"""Mean pairwise similarity of projections that indicates collapse. It is far lower in a normal training, and 1 after
complete collapse."""
NEIGHBOURS = 10
"""Number of voting neighbours, as in the protocol `knn-10`."""
WARMUP_STEPS = 200
"""Steps without collapse warnings. Projections of an untrained network can have similarities up to 1.0."""
LOSS_RISE = 1.5
"""Ratio of the loss to its lowest value that triggers a warning. Normal variation between epochs is a few percent."""


def monitored_rows(count: int) -> NDArray[np.int64]:
    """Return the monitored ones of ``count`` training images, in random order: int64 (n,), equal for all seeds."""
    return permutation(0, Stream.MONITOR, 0, count)[: min(max(MIN_IMAGES, count // 10), MAX_IMAGES)]


def is_due(epoch: int, epochs: int) -> bool:
    """Tell whether to evaluate after ``epoch`` (from 1): about every 5 % of the epochs, and after the last one."""
    return epoch == epochs or epoch % max(1, epochs // EVALUATIONS) == 0


def mean_similarity(units: Tensor) -> float:
    r"""Return the mean cosine similarity of all pairs of unit vectors (N, D), including each with itself.

    It is $\frac1{N^2} \sum_{ij} u_i \cdot u_j = \lVert \frac1N \sum_i u_i \rVert^2$, in [0, 1]: 1 if all vectors
    are equal, 1/N if they are orthogonal.
    """
    return float(units.float().mean(0).square().sum())


def relative_deviation(units: Tensor) -> float:
    r"""Return the standard deviation of unit vectors (N, D), averaged over dimensions, times $\sqrt D$.

    About 1 if they are spread evenly over the sphere, 0 if all are equal (SimSiam, Chen & He 2021, figure 2).
    """
    return float(units.float().std(0, correction=0).mean()) * math.sqrt(units.shape[1])


def held_out_accuracy(units: Tensor, labels: Tensor, classes: int) -> float | None:
    """Return the `knn-10` top-1 accuracy of the first quarter of the images, in percent, with the rest as the bank.

    Does not use faiss, which would take GPU memory from the training.

    Args:
        units: (n, D) float32 unit vectors.
        labels: (n,) int64, -1 where unknown.
        classes: number of classes.

    Returns:
        Accuracy, or None if too few images have labels.
    """
    known, first = labels >= 0, len(labels) // 4
    queries, bank = units[:first][known[:first]], units[first:][known[first:]]  # (q, D), (b, D)
    query_labels, bank_labels = labels[:first][known[:first]], labels[first:][known[first:]]
    if len(queries) == 0 or len(bank) < NEIGHBOURS:
        return None
    similarity, index = (queries @ bank.T).topk(NEIGHBOURS)  # (q, k)
    scores = class_votes(bank_labels[index], majority_weights(similarity.double()), classes)  # (q, C)
    return accuracy(scores, query_labels)["top1"]


def lowest_before_rise(rows: Sequence[LogRow], filled: int) -> LogRow | None:
    """Return the epoch with the lowest loss if the last loss exceeds it by the factor `LOSS_RISE`, else None.

    Always None for the first two epochs and for a negative lowest loss. Epochs whose loss had other terms are ignored.

    Args:
        rows: log rows of all epochs so far.
        filled: number of epochs to ignore until embeddings have filled the queue. Its initial random vectors are easy
            negatives, so the loss rises while they are replaced.
    """
    comparable = [row for row in rows[filled:] if row.keys() == rows[-1].keys()]
    if len(rows) < 3 or not comparable:
        return None
    lowest = min(comparable, key=lambda row: row["loss"])
    return lowest if rows[-1]["loss"] > LOSS_RISE * lowest["loss"] > 0 else None


def is_collapsed(similarity: float, steps: int) -> bool:
    """Tell whether a mean pairwise similarity of projections after ``steps`` training steps indicates collapse."""
    return similarity > COLLAPSE_SIMILARITY and steps >= WARMUP_STEPS


@contextmanager
def in_eval_mode(network: nn.Module) -> Iterator[None]:
    """Put a network into eval mode within the block; restore each module's mode afterwards."""
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


class EventWriter:
    """Writes scalars for TensorBoard. After a write error, it warns once and stops writing."""

    def __init__(self, folder: Path, epoch: int) -> None:
        """Continue in ``folder`` at ``epoch`` (from 1): TensorBoard hides earlier events from this epoch on.

        At epoch 1, deletes the folder's old event files.
        """
        from torch.utils.tensorboard import SummaryWriter

        self._folder = folder
        self._writer: SummaryWriter | None = None
        try:
            for old in folder.glob("events.out.tfevents.*") if epoch == 1 else ():
                old.unlink()
            self._writer = SummaryWriter(str(folder), purge_step=epoch)
        except OSError as error:
            self._stop(error)

    def write(self, epoch: int, scalars: Mapping[str, float]) -> None:
        """Write the scalars of an epoch, counted from 1, by their tags."""
        if self._writer is None:
            return
        try:
            for tag, value in scalars.items():
                self._writer.add_scalar(tag, value, epoch)
            self._writer.flush()
        except OSError as error:  # raised in the writer's thread, which prints it too
            self._stop(error)

    def _stop(self, error: OSError) -> None:
        log.warning(
            "--events: %s cannot be written (%s); training goes on without events", self._folder, error.strerror
        )
        self._writer = None


class Monitor:
    """Evaluates a model during training, writes TensorBoard events, warns, and summarises the training.

    Evaluates on centre crops of some training images, resized so that a crop spans the shorter side. Only rank 0 has a
    monitor.
    """

    def __init__(
        self,
        model: TrainingModel,
        data: TrainingBatches,
        training: Training,
        device: torch.device,
        workers: int,
        title: str,
        events: Path | None,
    ) -> None:
        """Monitor the training of ``model``.

        Args:
            model: model to evaluate, on ``device``.
            data: its training batches.
            training: settings of the training.
            device: device to evaluate on.
            workers: number of loader workers.
            title: name in log lines.
            events: folder for TensorBoard's event files; None to write none.
        """
        self._model, self._data, self._training = model, data, training
        self._device, self._workers, self._title = device, workers, title
        self._folder = events
        self._events: EventWriter | None = None
        listing = data.images.listing
        rows = monitored_rows(len(listing))
        preprocessing = data.preprocessing.model_dump() | {"resize": data.preprocessing.size}
        self._views = CentreViews(data.images, Preprocessing(**preprocessing), "bilinear", rows)
        self._labels, self._classes = torch.from_numpy(listing.label[rows]), len(listing.classes)
        self._images_per_epoch = data.steps * data.batch_size
        self._metrics: dict[str, float] = {}
        self._warned: set[str] = set()
        self._start_epoch, self._images, self._seconds = 0, 0, 0.0
        """Epochs trained before this run resumed; images and seconds of the finished epochs of this run."""
        self._epoch_images, self._epoch_start = 0, 0.0
        """Images of the current epoch that this run trains, and the time when it started them."""

    def begin(self, position: TrainingPosition) -> None:
        """Start at ``position``, before the first step."""
        if self._folder is not None:
            self._events = EventWriter(self._folder, len(position.rows) + 1)
        self._start_epoch = len(position.rows)
        self._epoch_images = self._images_per_epoch - position.step * self._data.batch_size
        size, count = self._model.method.queue_size, len(self._data.images.listing)
        if self._model.method.queues() and size > count:
            message = "queue_size %s is more than the %s training images, so each is compared with itself; lower it"
            self._warn("queue", message, f"{size:,}", f"{count:,}")
        self._epoch_start = time.monotonic()

    def after_epoch(self, rows: list[LogRow]) -> str:
        """Evaluate after the last epoch of ``rows``; return the text to show next to the progress bar."""
        seconds, epoch, row = time.monotonic() - self._epoch_start, len(rows), rows[-1]
        scalars = {f"loss/{name}": value for name, value in row.items() if name not in ("epoch", "lr")}
        scalars |= {"training/lr": row["lr"], "training/images_per_second": self._epoch_images / max(seconds, 1e-9)}
        if is_due(epoch, self._training.epochs):
            self._metrics = self._evaluate(epoch)
            scalars |= self._metrics
            self._warn_if_collapsed(epoch)
        if self._events is not None:
            self._events.write(epoch, scalars)
        self._warn_if_loss_rises(rows)
        self._images, self._seconds = self._images + self._epoch_images, self._seconds + seconds
        self._epoch_images, self._epoch_start = self._images_per_epoch, time.monotonic()
        return f", kNN {self._metrics['knn/top1']:.1f} %" if "knn/top1" in self._metrics else ""

    def summary(self, rows: list[LogRow]) -> str:
        """Return a one-line summary of the training with log ``rows``."""
        parts = [f"{self._title}: {len(rows)} epochs"]
        if self._images:
            time_taken = f"{int(self._seconds) // 60}:{int(self._seconds) % 60:02d}"
            resumed = f", {len(rows) - self._start_epoch} of them now" if self._start_epoch else ""
            parts[0] += f"{resumed} in {time_taken} at {self._images / self._seconds:,.0f} images/s"
        parts.append(f"loss {rows[0]['loss']:.4g} -> {rows[-1]['loss']:.4g}")
        if "knn/top1" in self._metrics:
            parts.append(f"kNN top-1 on training images {self._metrics['knn/top1']:.1f} %")
        if self._metrics:
            parts.append(f"mean similarity of projections {self._metrics['projections/similarity']:.3f}")
        return ", ".join(parts)

    def _evaluate(self, epoch: int) -> dict[str, float]:
        """Return the metrics of networks and queues, by TensorBoard tag."""
        model = self._model
        with in_eval_mode(model), torch.inference_mode():
            batches = embed_alone(model.backbone, self._views, range(len(self._views)), self._device, self._workers)
            features = torch.cat(list(batches))  # (n, D)
            projections = model.head(features.to(self._device))  # (n, d)
        metrics: dict[str, float] = {}
        for name, outputs in (("projections", projections), ("features", features)):
            units = F.normalize(outputs.float(), dim=1)
            metrics |= {f"{name}/similarity": mean_similarity(units), f"{name}/deviation": relative_deviation(units)}
        accuracy = held_out_accuracy(F.normalize(features, dim=1), self._labels, self._classes)
        if accuracy is not None:
            metrics["knn/top1"] = accuracy
        for name in model.method.queues():
            metrics[f"queue/{name}_similarity"] = mean_similarity(model.queues[name].keys)  # type: ignore[arg-type]
        oldest = min(model.method.queue_size, epoch * self._images_per_epoch)
        return metrics | {"queue/epochs": oldest / self._images_per_epoch}

    def _warn_if_collapsed(self, epoch: int) -> None:
        similarity = self._metrics["projections/similarity"]
        if not is_collapsed(similarity, epoch * self._data.steps):
            return
        teacher_queues = [name for name, source in self._model.method.queues().items() if source == "teacher"]
        remedy = f"lower the learning rate, training.lr, now {self._training.lr}, or train for more epochs"
        if any(self._metrics[f"queue/{name}_similarity"] > COLLAPSE_SIMILARITY for name in teacher_queues):
            remedy = "the teacher's outputs are nearly the same too: choose another teacher"
        message = "after epoch %d the projections of different images are nearly the same (mean similarity %.3f); %s"
        self._warn("collapse", message, epoch, similarity, remedy)

    def _warn_if_loss_rises(self, rows: list[LogRow]) -> None:
        lowest = lowest_before_rise(rows, math.ceil(self._model.method.queue_size / self._images_per_epoch))
        if lowest is not None:
            message = (
                "the loss rises: %.4g in epoch %d after %.4g in epoch %d; lower the learning rate, training.lr, now %g"
            )
            values = rows[-1]["loss"], len(rows), lowest["loss"], int(lowest["epoch"]), self._training.lr
            self._warn("rise", message, *values)

    def _warn(self, kind: str, message: str, *values: object) -> None:
        """Log a warning, once per kind."""
        if kind not in self._warned:
            self._warned.add(kind)
            log.warning(f"%s: {message}", self._title, *values)
