"""Average precision, computed with COCO's evaluation code (pycocotools)."""

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
"""IoU thresholds that each metric averages over, as a slice of 0.5, 0.55, ..., 0.95."""


def detect_objects(
    detector: nn.Module, images: CocoImages, device: torch.device, workers: int, title: str
) -> list[dict[str, Any]]:
    """Return a detector's detections in all images, in COCO's results format.

    Args:
        detector: detector on ``device``; it is put into eval mode.
        images: validation images.
        device: device to compute on.
        workers: number of loader workers.
        title: name in progress lines.

    Raises:
        BingoError: an image cannot be read.
    """
    detector.eval()
    results: list[dict[str, Any]] = []
    with Progress(f"{title}, validation", len(images), "images") as progress, torch.no_grad():
        for image, pixels in zip(images.annotations.images, pictures(images, workers), strict=True):
            detections = detector([pixels.to(device) / 255])[0]
            results += as_results(detections, image["id"], images.category_ids)
            progress.advance(1)
    return results


def as_results(detections: dict[str, Tensor], image_id: int, category_ids: list[int]) -> list[dict[str, Any]]:
    """Convert one image's detections from torchvision's to COCO's results format.

    Args:
        detections: N detections: `boxes` (N, 4), `labels` (N,) from 1, `scores` (N,) and, for Mask R-CNN, `masks`
            (N, 1, H, W) in [0, 1], binarised at 0.5 as in torchvision's reference.
        image_id: id of the image.
        category_ids: category id of each label, from label 1.
    """
    corners = detections["boxes"].to("cpu", torch.float64)  # (N, 4), x1 y1 x2 y2
    boxes = torch.cat([corners[:, :2], corners[:, 2:] - corners[:, :2]], dim=1)  # (N, 4), x y width height
    labels, scores = detections["labels"].tolist(), detections["scores"].tolist()
    results = [
        {"image_id": image_id, "category_id": category_ids[label - 1], "bbox": box, "score": score}
        for box, label, score in zip(boxes.tolist(), labels, scores, strict=True)
    ]
    if "masks" in detections:
        for result, rle in zip(results, encode_masks(detections["masks"][:, 0] > 0.5), strict=True):
            result["segmentation"] = rle
    return results


def average_precision(images: CocoImages, results: list[dict[str, Any]]) -> dict[str, float]:
    """Return COCO's AP, AP50 and AP75 in percent, with at most 100 detections per image.

    Args:
        images: validation images with at least one object that is not a crowd.
        results: detections in COCO's results format; may be empty.

    Returns:
        `box_ap`, `box_ap50`, `box_ap75` and, if the annotations have masks, `mask_ap`, `mask_ap50`, `mask_ap75`.
    """
    metrics: dict[str, float] = {}
    truth = [annotation for objects in images.annotations.objects for annotation in objects]
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
        precision = evaluation.eval["precision"][:, :, :, 0, 0]  # (IoU, recall, category); -1 without objects
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
        "annotations": copy.deepcopy(entries),  # COCOeval modifies them
    }
    coco.createIndex()
    return coco
