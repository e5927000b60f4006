"""Images with annotated objects, as torchvision's detectors take them."""

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

# Resizing in float32 must not close a box, on which torchvision's detectors fail.
_NARROWEST = 0.01


class CocoImages:
    """Images in a folder, and what an annotation file says of them."""

    def __init__(self, folder: Path, annotations: Annotations) -> None:
        """Check that every image that is annotated is there; none is decoded yet.

        Raises:
            BingoError: an image file is missing.
        """
        self.folder, self.annotations = folder, annotations
        for image in annotations.images:
            if not (folder / image["file_name"]).is_file():
                raise BingoError(f"{folder / image['file_name']}: no such file, but {annotations.path} names it")
        self.category_ids = sorted(annotations.categories)
        """Category of each label: that of label 1 comes first, since 0 is the background."""
        self._label = {category: label for label, category in enumerate(self.category_ids, start=1)}

    def __len__(self) -> int:
        return len(self.annotations.images)

    def read(self, position: int) -> Tensor:
        """Decode an image: uint8 (3, H, W).

        Raises:
            BingoError: the file is gone, cannot be decoded, or has another size than the annotations say.
        """
        image = self.annotations.images[position]
        path = self.folder / image["file_name"]
        try:
            pixels = decode(path.read_bytes())
        except OSError as error:
            raise BingoError(f"{path}: cannot be read ({error.strerror})") from error
        except BadImageError as error:
            raise BingoError(f"{path}: cannot be decoded ({error}); repair it, or take it out of the set") from error
        height, width = pixels.shape[1:]
        if (height, width) != (image["height"], image["width"]):
            raise BingoError(
                f"{path}: is {width} x {height} pixels, upright by its EXIF orientation, but {self.annotations.path} "
                f"says {image['width']} x {image['height']}; repair one of them"
            )
        return pixels

    def target(self, position: int) -> dict[str, Tensor]:
        """Return what a detector is to learn from an image of N objects.

        Crowds are left out. Boxes end at the image's edge, as in torchvision's reference (some of COCO's reach beyond
        it by a fraction of a pixel); those without area are left out with their masks.

        Returns:
            `boxes` float32 (N, 4), x1, y1, x2, y2 in pixels; `labels` int64 (N,), from 1 in the order of
            `category_ids`; and `masks` uint8 (N, H, W), where the annotations were read with outlines.
        """
        image = self.annotations.images[position]
        objects, boxes = self._trained_on(position)
        labels = torch.tensor([self._label[found["category_id"]] for found in objects], dtype=torch.int64)
        target = {"boxes": boxes, "labels": labels}
        if self.annotations.masks:
            outlines = [found["segmentation"] for found in objects]
            target["masks"] = decode_masks(outlines, image["height"], image["width"])
        return target

    def trainable(self) -> NDArray[np.int64]:
        """Return the positions of the images with objects to learn from, (N,), and log what is left out.

        Raises:
            BingoError: there are none.
        """
        counts = np.array([len(self._trained_on(position)[0]) for position in range(len(self))])
        everything = [found for objects in self.annotations.objects for found in objects]
        crowds = sum(found["iscrowd"] for found in everything)
        log.info(
            "%s: %d objects in %d images; left out: %d crowds, %d boxes without area, %d images without objects",
            self.annotations.path,
            counts.sum(),
            (counts > 0).sum(),
            crowds,
            len(everything) - crowds - counts.sum(),
            (counts == 0).sum(),
        )
        if not counts.any():
            raise BingoError(f"{self.annotations.path}: has no object to learn from, only crowds or boxes without area")
        return np.flatnonzero(counts)

    def require_objects(self) -> None:
        """Check that there is something to be found; crowds do not count.

        Raises:
            BingoError: there is nothing, so that average precision is not defined.
        """
        found = [sum(not entry["iscrowd"] for entry in objects) for objects in self.annotations.objects]
        empty = found.count(0)
        log.info("%s: %d objects in %d images, %d of them empty", self.annotations.path, sum(found), len(self), empty)
        if not any(found):
            raise BingoError(f"{self.annotations.path}: has no object to be found, only crowds")

    def _trained_on(self, position: int) -> tuple[list[dict[str, Any]], Tensor]:
        """Return the objects to learn from, and their boxes: float32 (N, 4)."""
        image = self.annotations.images[position]
        objects = [found for found in self.annotations.objects[position] if not found["iscrowd"]]
        boxes = torch.tensor([found["bbox"] for found in objects], dtype=torch.float64).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        boxes[:, 0::2].clamp_(0, image["width"])
        boxes[:, 1::2].clamp_(0, image["height"])
        boxes = boxes.float()
        whole = (boxes[:, 2:] - boxes[:, :2] >= _NARROWEST).all(dim=1)
        return [found for found, keep in zip(objects, whole.tolist(), strict=True) if keep], boxes[whole]
