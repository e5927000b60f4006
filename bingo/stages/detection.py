"""The detection stage: fine-tune a backbone as part of a detector, and evaluate the detector."""

import logging

import torch

from bingo.artifacts.provenance import digest_json, provenance
from bingo.artifacts.results import write_result
from bingo.artifacts.tensors import network_digest
from bingo.errors import BingoError, nearest
from bingo.evaluation.detection.annotations import read_annotations
from bingo.evaluation.detection.average_precision import average_precision, detect_objects
from bingo.evaluation.detection.batches import DetectionBatches
from bingo.evaluation.detection.coco import CocoImages
from bingo.evaluation.detection.network import build_detector
from bingo.evaluation.detection.train import DetectorTask
from bingo.models.checkpoint import read_backbone
from bingo.study.jobs import DetectionJob
from bingo.study.protocols import DETECTION_PROTOCOLS, Detection
from bingo.training.device import describe_device
from bingo.training.loop import train
from bingo.training.state import TrainingState

log = logging.getLogger(__name__)


def run(job: DetectionJob, device: torch.device, workers: int) -> None:
    """Fine-tune a detector, compute its average precision, and write a result file.

    Raises:
        BingoError: the protocol is unknown, an input does not exist or is damaged, the backbone is not a ResNet, or the
            loss is not finite.
    """
    if job.protocol not in DETECTION_PROTOCOLS:
        hint = nearest(job.protocol, DETECTION_PROTOCOLS)
        raise BingoError(f"detection: there is no protocol '{job.protocol}'{hint}")
    protocol = DETECTION_PROTOCOLS[job.protocol]
    train_set, val_set = (
        CocoImages(folder, read_annotations(path, protocol.masks))
        for folder, path in ((job.images, job.annotations), (job.val_images, job.val_annotations))
    )
    measure(job, protocol, train_set, val_set, device, workers)


def measure(
    job: DetectionJob,
    protocol: Detection,
    train_set: CocoImages,
    val_set: CocoImages,
    device: torch.device,
    workers: int,
) -> None:
    """Like `run`, with datasets and hyperparameters as arguments.

    Raises:
        BingoError: as `run`.
    """
    if val_set.annotations.categories != train_set.annotations.categories:
        raise BingoError(
            f"{val_set.annotations.path}: its categories are not those of {train_set.annotations.path}; "
            "use the same categories in both"
        )
    val_set.require_objects()
    data = DetectionBatches(train_set, protocol.batch_size, job.seed)
    backbone, model = read_backbone(job.weights, device)
    inputs = {
        "train": train_set.annotations.digest,
        "val": val_set.annotations.digest,
        "model": network_digest(model),
    }
    title = f"{job.model} {job.evaluation} seed {job.seed}"
    identity = digest_json([job.settings, repr(protocol), inputs, device.type])
    state = TrainingState(job.output.with_suffix(".state.pt"), identity)
    torch.manual_seed(job.seed)  # initial weights of the new layers
    preprocessing, classes = job.preprocessing, len(train_set.category_ids)
    detector = build_detector(backbone, protocol, classes, preprocessing.mean, preprocessing.std).to(device)
    with state.exclusively():
        train(DetectorTask(detector, data, protocol, device), state, workers, title)
        metrics = average_precision(val_set, detect_objects(detector, val_set, device, workers, title))
        origin = provenance(job.STAGE, job.STAGE_VERSION, job.settings, inputs, **describe_device(device))
        write_result(job.output, job.evaluation, job.model, job.seed, metrics, {}, origin)
        log.info("%s, %s: %s", job.model, job.evaluation, metrics)
        state.discard()
