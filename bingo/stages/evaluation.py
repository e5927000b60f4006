"""The evaluation stage: evaluate a backbone under a protocol."""

import hashlib
import logging
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from bingo.artifacts.provenance import provenance
from bingo.artifacts.results import write_result
from bingo.artifacts.tensors import digest_tensors, network_digest
from bingo.data.images import open_images
from bingo.data.listing import Listing, read_listing
from bingo.errors import BingoError, nearest
from bingo.evaluation.finetune import evaluate_finetune
from bingo.evaluation.knn import evaluate_knn
from bingo.evaluation.linear import evaluate_linear
from bingo.evaluation.probe import Measurement, Probe
from bingo.evaluation.sweep import evaluate_sweep
from bingo.models.backbone import require_size
from bingo.models.checkpoint import read_backbone
from bingo.study.jobs import EvaluationJob
from bingo.study.protocols import PROTOCOLS, TRANSFER_PROTOCOLS, Finetune, Knn, Linear, LinearSweep
from bingo.training.device import describe_device
from bingo.training.distributed import is_first, processes

log = logging.getLogger(__name__)
_EVALUATORS: dict[type, Callable[[Any, Probe], Measurement]] = {
    Knn: evaluate_knn,
    Linear: evaluate_linear,
    LinearSweep: evaluate_sweep,
    Finetune: evaluate_finetune,
}


def run(job: EvaluationJob, device: torch.device, workers: int) -> None:
    """Evaluate a backbone under a protocol, and write a result file.

    Raises:
        BingoError: the protocol is unknown, an input does not exist or is damaged, or images have no labels.
    """
    known = {**PROTOCOLS, **TRANSFER_PROTOCOLS}
    if job.protocol not in known:
        raise BingoError(f"evaluations: there is no protocol '{job.protocol}'{nearest(job.protocol, known)}")
    protocol = known[job.protocol]
    train, val = read_listing(job.listing, "train"), read_listing(job.val_listing, "val")
    for path, listing in ((job.listing, train), (job.val_listing, val)):
        if not listing.labelled:
            raise BingoError(f"{path}: the {listing.split} images have no labels; evaluate on a dataset with labels")
    if val.classes != train.classes:
        raise BingoError(f"{job.val_listing}: its classes are not those of {job.listing}; delete both and run again")
    backbone, model = read_backbone(job.weights, device)
    require_size(backbone, job.preprocessing.size, device)
    weights_before = digest_tensors(backbone.state_dict())
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
        label_list=job.label_list,
    )
    measurement = _EVALUATORS[type(protocol)](protocol, probe)
    if not isinstance(protocol, Finetune):
        # A failure here is a bug in a protocol, not a user's error.
        if any(module.training for module in backbone.modules()):
            raise AssertionError(f"protocol {job.evaluation} left the backbone in training mode")
        if digest_tensors(backbone.state_dict()) != weights_before:
            raise AssertionError(f"protocol {job.evaluation} changed the backbone that it measured")
    if not is_first():
        return
    inputs = {"train": train.digest, "val": val.digest, "model": network_digest(model)}
    if job.label_list is not None:
        inputs["label_list"] = hashlib.sha256(job.label_list.read_bytes()).hexdigest()
    machine = {**describe_device(device), "processes": str(processes())}
    metrics, facts = measurement.metrics, measurement.facts
    origin = provenance(job.STAGE, job.STAGE_VERSION, job.settings, inputs, **machine)
    write_result(job.output, job.evaluation, job.model, job.seed, metrics, facts, origin)
    log.info("%s, %s: %s %s", job.model, job.evaluation, metrics, facts or "")


def _labelled(listing: Listing) -> Listing:
    return listing.select(np.flatnonzero(listing.label >= 0))
