"""Entry point of the evaluation stage."""

import json
import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from bingo.artifacts import provenance, write_text
from bingo.data.images import Images, open_images
from bingo.data.listing import read_listing
from bingo.data.loader import TrainingBatches
from bingo.embeddings.embeddings import embed
from bingo.errors import BingoError, nearest
from bingo.evaluation.knn import knn_accuracy
from bingo.evaluation.linear import (
    FeatureBatches,
    cached_batches,
    linear_accuracy,
    standardiser,
    train_linear,
)
from bingo.evaluation.protocols import PROTOCOLS, Knn, Linear
from bingo.jobs import EvaluationJob
from bingo.methods.method import View
from bingo.models.backbone import feature_width, require_size
from bingo.models.checkpoint import load_backbone
from bingo.progress import Progress
from bingo.tensors import digest_tensors, network_digest
from bingo.views.recipes import RECIPES

log = logging.getLogger(__name__)


class Probe:
    """A frozen backbone and the labelled images it is measured on."""

    def __init__(
        self,
        job: EvaluationJob,
        backbone: nn.Module,
        train: Images,
        val: Images,
        device: torch.device,
        workers: int,
    ) -> None:
        """Keep what every protocol needs."""
        self.job, self.backbone, self.train, self.val = job, backbone, train, val
        self.device, self.workers = device, workers
        self.classes = len(train.listing.classes)

    def measure(self, protocol: Linear | Knn) -> Iterator[tuple[str, float]]:
        """Yield (metric, value in percent) of one protocol."""
        train_labels = torch.from_numpy(self.train.listing.label)
        val, val_labels = self._features(self.val, "validation"), torch.from_numpy(self.val.listing.label)
        if isinstance(protocol, Knn):
            train = self._features(self.train, "training")
            yield from knn_accuracy(protocol, train, train_labels, val, val_labels, self.classes).items()
            return
        if protocol.augment:
            batches = self._augmented_batches(protocol)
        else:
            train = self._features(self.train, "training")
            if protocol.standardise:
                standardise = standardiser(train)
                train, val = standardise(train), standardise(val)
            batches = cached_batches(
                train.to(self.device), train_labels.to(self.device), protocol.batch_size, self.job.seed
            )
        classifier = train_linear(protocol, batches, feature_width(self.backbone), self.classes, self.job.seed)
        yield from linear_accuracy(classifier, val, val_labels).items()

    def _features(self, images: Images, title: str) -> Tensor:
        """Features of the centre views: float32 (N, D) on the CPU."""
        with Progress(f"{self.job.model} {title} features", len(images.listing), "images") as progress:
            parts = []
            for batch in embed(self.backbone, images, self.job.preprocessing, self.device, self.workers):
                parts.append(batch.cpu())
                progress.advance(len(batch))
        features = torch.cat(parts)
        if not features.isfinite().all():
            raise BingoError(f"{self.job.model}: its features are not finite; train it with a lower learning rate")
        return features

    def _augmented_batches(self, protocol: Linear) -> FeatureBatches:
        """Features of fresh crops in every epoch."""
        data = TrainingBatches(
            self.train,
            {"image": View("anchor", 0)},
            RECIPES["crop-flip"],
            self.job.preprocessing,
            min(protocol.batch_size, len(self.train.listing)),
            self.job.seed,
            bags=None,
            drop_last=False,
        )
        labels = torch.from_numpy(self.train.listing.label)

        def batches(epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
            for batch in data.batches(epoch, epoch + 1, self.workers):
                with torch.no_grad():
                    features = self.backbone(data.render(batch.views["image"], self.device))
                yield features, labels[torch.from_numpy(batch.rows["anchor"])].to(self.device)

        return batches


def evaluate(
    job: EvaluationJob,
    train_path: Path,
    val_path: Path,
    model_path: Path,
    output: Path,
    device: torch.device,
    workers: int,
) -> None:
    """Measure a backbone by a protocol and write one JSON: protocol, model, seed, metrics, digests, provenance.

    Raises:
        BingoError: the protocol is unknown, an input is damaged, or there are no labels or no validation images.
    """
    if job.protocol not in PROTOCOLS:
        raise BingoError(f"evaluations: there is no protocol '{job.protocol}'{nearest(job.protocol, PROTOCOLS)}")
    train, val = read_listing(train_path, "train"), read_listing(val_path, "val")
    for path, listing in ((train_path, train), (val_path, val)):
        if not listing.labelled:
            raise BingoError(f"{path}: the {listing.split} images have no labels to evaluate with")
    if val.classes != train.classes:
        raise BingoError(f"{val_path}: its classes are not those of {train_path}; delete both and run again")
    backbone, model = load_backbone(model_path, device)
    require_size(backbone, job.preprocessing.size, device)
    train_images, val_images = (
        open_images(listing.select(np.flatnonzero(listing.label >= 0))) for listing in (train, val)
    )
    probe = Probe(job, backbone, train_images, val_images, device, workers)
    metrics = dict(probe.measure(PROTOCOLS[job.protocol]))
    if digest_tensors(backbone.state_dict()) != digest_tensors(load_backbone(model_path, device)[0].state_dict()):
        raise AssertionError(f"protocol {job.protocol} changed the backbone that it measured")
    inputs = {"train": train.digest, "val": val.digest, "model": network_digest(model)}
    result = {
        "protocol": job.protocol,
        "model": job.model,
        "seed": job.seed,
        "metrics": metrics,
        "provenance": provenance("evaluation", job.version, job.model_dump(mode="json"), inputs, device=device.type),
    }
    write_text(output, json.dumps(result, indent=2, sort_keys=True) + "\n")
    log.info("%s, %s: %s", job.model, job.protocol, metrics)
