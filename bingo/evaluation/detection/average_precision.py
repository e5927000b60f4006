"""Average precision, as COCO's own evaluation computes it."""

import contextlib
import copy
import io
from typing import Any

import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torch import Tensor, nn

from bingo.evaluation.detection.batches import pictures
from bingo.evaluation.detection.coco import CocoImages
from bingo.evaluation.detection.segmentation import encode_masks
from bingo.progress import Progress

_MAX_DETECTIONS = 100
_KINDS = {"box": "bbox", "mask": "segm"}
_THRESHOLDS = {"": slice(None), "50": slice(0, 1), "75": slice(5, 6)}
"""Of the overlaps 0.5, 0.55 to 0.95, those that a metric is the mean over."""


def detect_objects(
    detector: nn.Module, images: CocoImages, device: torch.device, workers: int, title: str
) -> list[dict[str, Any]]:
    """Return what a detector finds in all images, in the form of COCO's result files.

    Args:
        detector: on ``device``; it is put into eval mode.
        images: the validation images.
        device: where to compute.
        workers: loader processes.
        title: name for progress lines.

    Raises:
        BingoError: an image cannot be read.
    """
    detector.eval()
    results: list[dict[str, Any]] = []
    with Progress(f"{title}, validation", len(images), "images") as progress, torch.no_grad():
        for image, pixels in zip(images.annotations.images, pictures(images, workers), strict=True):
            found = detector([pixels.to(device) / 255])[0]
            results += as_results(found, image["id"], images.category_ids)
            progress.advance(1)
    return results


def as_results(found: dict[str, Tensor], image_id: int, category_ids: list[int]) -> list[dict[str, Any]]:
    """Return one image's detections in the form of COCO's result files.

    Args:
        found: N detections of torchvision's: `boxes` (N, 4), `labels` (N,) from 1, `scores` (N,), and of a Mask R-CNN
            `masks` (N, 1, H, W) in [0, 1], cut at 0.5 as in torchvision's reference.
        image_id: the image's number.
        category_ids: category of each label, that of label 1 first.
    """
    corners = found["boxes"].to("cpu", torch.float64)
    boxes = torch.cat([corners[:, :2], corners[:, 2:] - corners[:, :2]], dim=1)
    results = [
        {"image_id": image_id, "category_id": category_ids[label - 1], "bbox": box, "score": score}
        for box, label, score in zip(boxes.tolist(), found["labels"].tolist(), found["scores"].tolist(), strict=True)
    ]
    if "masks" in found:
        for result, outline in zip(results, encode_masks(found["masks"][:, 0] > 0.5), strict=True):
            result["segmentation"] = outline
    return results


def average_precision(images: CocoImages, results: list[dict[str, Any]]) -> dict[str, float]:
    """Return average precision in percent: COCO's AP, AP50 and AP75 of at most 100 detections an image.

    Args:
        images: the validation images, with at least one object that is no crowd.
        results: detections in the form of COCO's result files; there may be none.

    Returns:
        `box_ap`, `box_ap50`, `box_ap75`, and where the images have outlines the same of `mask_`.
    """
    metrics: dict[str, float] = {}
    truth = [found for objects in images.annotations.objects for found in objects]
    detected = [result | {"id": n, "area": _area(result)} for n, result in enumerate(results, start=1)]
    for name, kind in _KINDS.items():
        if kind == "segm" and not images.annotations.masks:
            continue
        with contextlib.redirect_stdout(io.StringIO()):
            evaluation = COCOeval(_as_coco(images, truth), _as_coco(images, detected), kind)
            evaluation.params.maxDets = [_MAX_DETECTIONS]
            evaluation.params.areaRng, evaluation.params.areaRngLbl = [[0, 1e10]], ["all"]
            evaluation.evaluate()
            evaluation.accumulate()
        precision = evaluation.eval["precision"][:, :, :, 0, 0]  # overlap, recall, category; -1 without objects
        for suffix, thresholds in _THRESHOLDS.items():
            part = precision[thresholds]
            metrics[f"{name}_ap{suffix}"] = 100 * float(part[part > -1].mean())
    return metrics


def _area(result: dict[str, Any]) -> float:
    _, _, width, height = result["bbox"]
    return float(width * height)


def _as_coco(images: CocoImages, entries: list[dict[str, Any]]) -> COCO:
    coco = COCO()
    coco.dataset = {
        "images": images.annotations.images,
        "categories": [{"id": number, "name": name} for number, name in images.annotations.categories.items()],
        "annotations": copy.deepcopy(entries),  # the evaluation writes into them
    }
    coco.createIndex()
    return coco
