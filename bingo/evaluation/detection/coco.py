"""Annotated images in the input format of torchvision's detectors."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bingo.data.decode import BadImageError, decode
from bingo.errors import BingoError
from bingo.evaluation.detection.annotations import Annotations
from bingo.evaluation.detection.segmentation import decode_masks

log = logging.getLogger(__name__)

# Pixels. Torchvision's detectors fail if resizing in float32 gives a box of zero width or height.
_MIN_BOX_SIDE = 0.01


class CocoImages:
    """Images in a folder, with their annotations."""

    def __init__(self, folder: Path, annotations: Annotations) -> None:
        """Check that every annotated image exists, without decoding it.

        Raises:
            BingoError: an image file does not exist.
        """
        self.folder, self.annotations = folder, annotations
        for image in annotations.images:
            if not (folder / image["file_name"]).is_file():
                raise BingoError(f"{folder / image['file_name']}: no such file, but {annotations.path} names it")
        self.category_ids = sorted(annotations.categories)
        """Category id of each label, from label 1; label 0 is the background."""
        self._label = {category: label for label, category in enumerate(self.category_ids, start=1)}

    def __len__(self) -> int:
        return len(self.annotations.images)

    def read(self, position: int) -> Tensor:
        """Decode an image: uint8 (3, H, W).

        Raises:
            BingoError: the file does not exist, cannot be decoded, or has another size than in the annotations.
        """
        image = self.annotations.images[position]
        path = self.folder / image["file_name"]
        try:
            pixels = decode(path.read_bytes())
        except OSError as error:
            raise BingoError(f"{path}: cannot be read ({error.strerror})") from error
        except BadImageError as error:
            raise BingoError(
                f"{path}: cannot be decoded ({error}); repair it, or remove it from the dataset"
            ) from error
        height, width = pixels.shape[1:]
        if (height, width) != (image["height"], image["width"]):
            raise BingoError(
                f"{path}: is {width} x {height} pixels (after EXIF rotation), but {self.annotations.path} "
                f"says {image['width']} x {image['height']}; correct one of them"
            )
        return pixels

    def target(self, position: int) -> dict[str, Tensor]:
        """Return the training target of an image with N objects.

        Crowds are left out. Boxes are clipped to the image, as in torchvision's reference, because some of COCO's boxes
        exceed it by a fraction of a pixel. Boxes without area are left out, together with their masks.

        Returns:
            `boxes` float32 (N, 4), x1, y1, x2, y2 in pixels; `labels` int64 (N,), from 1 in the order of
            `category_ids`; and, if the annotations have masks, `masks` uint8 (N, H, W).
        """
        image = self.annotations.images[position]
        objects, boxes = self._trainable_objects(position)
        labels = torch.tensor([self._label[annotation["category_id"]] for annotation in objects], dtype=torch.int64)
        target = {"boxes": boxes, "labels": labels}
        if self.annotations.masks:
            segmentations = [annotation["segmentation"] for annotation in objects]
            target["masks"] = decode_masks(segmentations, image["height"], image["width"])
        return target

    def trainable(self) -> NDArray[np.int64]:
        """Return the positions of the images with trainable objects, (N,), and log how many are left out.

        Raises:
            BingoError: no image has trainable objects.
        """
        counts = np.array([len(self._trainable_objects(position)[0]) for position in range(len(self))])
        annotations = [annotation for objects in self.annotations.objects for annotation in objects]
        crowds = sum(annotation["iscrowd"] for annotation in annotations)
        log.info(
            "%s: %d objects in %d images; left out: %d crowds, %d boxes without area, %d images without objects",
            self.annotations.path,
            counts.sum(),
            (counts > 0).sum(),
            crowds,
            len(annotations) - crowds - counts.sum(),
            (counts == 0).sum(),
        )
        if not counts.any():
            raise BingoError(
                f"{self.annotations.path}: has no objects to train on, only crowds or boxes without area; "
                "annotate objects"
            )
        return np.flatnonzero(counts)

    def require_objects(self) -> None:
        """Check that there are objects to detect. Crowds do not count.

        Raises:
            BingoError: there are none, so that average precision is undefined.
        """
        counts = [sum(not annotation["iscrowd"] for annotation in objects) for objects in self.annotations.objects]
        empty = counts.count(0)
        log.info("%s: %d objects in %d images, %d of them empty", self.annotations.path, sum(counts), len(self), empty)
        if not any(counts):
            raise BingoError(f"{self.annotations.path}: has no objects to detect, only crowds; annotate objects")

    def _trainable_objects(self, position: int) -> tuple[list[dict[str, Any]], Tensor]:
        """Return the annotations to train on, and their boxes: float32 (N, 4)."""
        image = self.annotations.images[position]
        objects = [annotation for annotation in self.annotations.objects[position] if not annotation["iscrowd"]]
        boxes = torch.tensor([annotation["bbox"] for annotation in objects], dtype=torch.float64).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]  # x y width height to x1 y1 x2 y2
        boxes[:, 0::2].clamp_(0, image["width"])
        boxes[:, 1::2].clamp_(0, image["height"])
        boxes = boxes.float()
        valid = (boxes[:, 2:] - boxes[:, :2] >= _MIN_BOX_SIDE).all(dim=1)  # (N,)
        return [annotation for annotation, keep in zip(objects, valid.tolist(), strict=True) if keep], boxes[valid]
