"""Entry point of the detection stage."""

import logging
from pathlib import Path

import torch

from bingo.artifacts import digest_json
from bingo.detection.annotations import read_annotations
from bingo.detection.average_precision import average_precision, detect_objects
from bingo.detection.batches import DetectionBatches
from bingo.detection.coco import CocoImages
from bingo.detection.network import build_detector
from bingo.detection.train import train
from bingo.engine.device import describe_device
from bingo.engine.state import TrainingState
from bingo.errors import BingoError, nearest
from bingo.evaluation.probe import Measurement
from bingo.evaluation.protocols import DETECTION_PROTOCOLS, Detection
from bingo.evaluation.result import write_result
from bingo.jobs import DetectionJob
from bingo.models.checkpoint import read_backbone
from bingo.tensors import network_digest

log = logging.getLogger(__name__)


def detect(
    job: DetectionJob,
    train_images: Path,
    train_annotations: Path,
    val_images: Path,
    val_annotations: Path,
    model_path: Path,
    output: Path,
    device: torch.device,
    workers: int,
) -> None:
    """Fine-tune a backbone as part of a detector and write one JSON: protocol, model, seed, metrics, provenance.

    Args:
        job: the stage's settings.
        train_images: folder of the training images.
        train_annotations: their annotations in COCO's format.
        val_images: folder of the validation images.
        val_annotations: theirs.
        model_path: file of the backbone, a student's or a teacher's.
        output: JSON to write; the training's state is beside it until then.
        device: where to train.
        workers: loader processes.

    Raises:
        BingoError: the protocol is unknown, an input is missing or damaged, the backbone is no ResNet, or the loss is
            not finite.
    """
    if job.protocol not in DETECTION_PROTOCOLS:
        hint = nearest(job.protocol, DETECTION_PROTOCOLS)
        raise BingoError(f"detection: there is no protocol '{job.protocol}'{hint}")
    protocol = DETECTION_PROTOCOLS[job.protocol]
    train_set, val_set = (
        CocoImages(folder, read_annotations(path, protocol.masks))
        for folder, path in ((train_images, train_annotations), (val_images, val_annotations))
    )
    measure(job, protocol, train_set, val_set, model_path, output, device, workers)


def measure(
    job: DetectionJob,
    protocol: Detection,
    train_set: CocoImages,
    val_set: CocoImages,
    model_path: Path,
    output: Path,
    device: torch.device,
    workers: int,
) -> None:
    """Do what `detect` does, by the hyper-parameters of ``protocol``.

    Raises:
        BingoError: as `detect`.
    """
    if val_set.annotations.categories != train_set.annotations.categories:
        raise BingoError(f"{val_set.annotations.path}: its categories are not those of {train_set.annotations.path}")
    val_set.require_objects()
    data = DetectionBatches(train_set, protocol.batch_size, job.seed)
    backbone, model = read_backbone(model_path, device)
    inputs = {
        "train": train_set.annotations.digest,
        "val": val_set.annotations.digest,
        "model": network_digest(model),
    }
    settings, title = job.model_dump(mode="json"), f"{job.model} {job.name} seed {job.seed}"
    identity = digest_json([settings, repr(protocol), inputs, device.type])
    state = TrainingState(output.with_suffix(".state.pt"), identity)
    torch.manual_seed(job.seed)  # initial weights of what is new
    preprocessing, classes = job.preprocessing, len(train_set.category_ids)
    detector = build_detector(backbone, protocol, classes, preprocessing.mean, preprocessing.std).to(device)
    with state.exclusively():
        train(detector, data, protocol, state, device, workers, title)
        metrics = average_precision(val_set, detect_objects(detector, val_set, device, workers, title))
        write_result(output, job, Measurement(metrics), inputs, describe_device(device))
        state.discard()
