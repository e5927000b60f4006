"""Entry point of the evaluation stage."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bingo.data.images import open_images
from bingo.data.listing import Listing, read_listing
from bingo.engine.device import describe_device
from bingo.engine.distributed import is_first, processes
from bingo.errors import BingoError, nearest
from bingo.evaluation.finetune import evaluate_finetune
from bingo.evaluation.knn import evaluate_knn
from bingo.evaluation.linear import evaluate_linear
from bingo.evaluation.probe import Measurement, Probe
from bingo.evaluation.protocols import PROTOCOLS, TRANSFER_PROTOCOLS, Finetune, Knn, Linear, LinearSweep
from bingo.evaluation.result import write_result
from bingo.evaluation.sweep import evaluate_sweep
from bingo.jobs import EvaluationJob
from bingo.models.backbone import require_size
from bingo.models.checkpoint import read_backbone
from bingo.tensors import digest_tensors, network_digest

_EVALUATORS: dict[type, Callable[[Any, Probe], Measurement]] = {
    Knn: evaluate_knn,
    Linear: evaluate_linear,
    LinearSweep: evaluate_sweep,
    Finetune: evaluate_finetune,
}


def evaluate(
    job: EvaluationJob,
    train_path: Path,
    val_path: Path,
    model_path: Path,
    label_list: Path | None,
    output: Path,
    device: torch.device,
    workers: int,
) -> None:
    """Measure a backbone by a protocol and write its result file.

    Args:
        job: the stage's settings.
        train_path: listing of the labelled images to train or vote with.
        val_path: listing of the images to classify.
        model_path: a student's backbone, or a teacher.
        label_list: file that names the images whose labels semi-supervised training may use; None to draw them.
        output: JSON file to write.
        device: where to compute.
        workers: loader processes.

    Raises:
        BingoError: the protocol is unknown, an input is damaged, or there are no labels or no validation images.
    """
    known = {**PROTOCOLS, **TRANSFER_PROTOCOLS}
    if job.protocol not in known:
        raise BingoError(f"evaluations: there is no protocol '{job.protocol}'{nearest(job.protocol, known)}")
    protocol = known[job.protocol]
    train, val = read_listing(train_path, "train"), read_listing(val_path, "val")
    for path, listing in ((train_path, train), (val_path, val)):
        if not listing.labelled:
            raise BingoError(f"{path}: the {listing.split} images have no labels to evaluate with")
    if val.classes != train.classes:
        raise BingoError(f"{val_path}: its classes are not those of {train_path}; delete both and run again")
    backbone, model = read_backbone(model_path, device)
    require_size(backbone, job.preprocessing.size, device)
    before = digest_tensors(backbone.state_dict())
    probe = Probe(
        name=job.model,
        architecture=model["backbone"]["architecture"],
        backbone=backbone,
        train=open_images(_labelled(train)),
        val=open_images(_labelled(val)),
        preprocessing=job.preprocessing,
        seed=job.seed,
        device=device,
        workers=workers,
        label_list=label_list,
    )
    found = _EVALUATORS[type(protocol)](protocol, probe)
    if not isinstance(protocol, Finetune):
        # An error here is one of this software: batch statistics or gradients have reached a frozen network.
        if any(module.training for module in backbone.modules()):
            raise AssertionError(f"protocol {job.name} left the backbone in training mode")
        if digest_tensors(backbone.state_dict()) != before:
            raise AssertionError(f"protocol {job.name} changed the backbone that it measured")
    if not is_first():
        return
    inputs = {"train": train.digest, "val": val.digest, "model": network_digest(model)}
    if label_list is not None:
        inputs["label_list"] = hashlib.sha256(label_list.read_bytes()).hexdigest()
    write_result(output, job, found, inputs, {**describe_device(device), "processes": str(processes())})


def _labelled(listing: Listing) -> Listing:
    return listing.select(np.flatnonzero(listing.label >= 0))
