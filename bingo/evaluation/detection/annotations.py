"""Annotations in COCO's format (cocodataset.org, data format: object detection), read and checked as a whole."""

import hashlib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, ValidationError

from bingo.errors import BingoError
from bingo.evaluation.detection.segmentation import encode


@dataclass(frozen=True)
class Annotations:
    """What an annotation file says."""

    path: Path
    digest: str
    """SHA-256 of the file."""
    categories: dict[int, str]
    """Name of each category, by its number."""
    images: list[dict[str, Any]]
    """`id`, `file_name`, `height` and `width` of each image."""
    objects: list[list[dict[str, Any]]]
    """Of each image, its annotations: `id`, `image_id`, `category_id`, `bbox` (x, y, width, height), `area`, `iscrowd`
    and, where masks are asked for, `segmentation` as compressed run lengths."""
    masks: bool
    """Whether there are any `segmentation`."""


class _Entry(BaseModel):
    model_config = ConfigDict(strict=True, allow_inf_nan=False)


class _Image(_Entry):
    id: int
    file_name: str
    height: PositiveInt
    width: PositiveInt


class _Category(_Entry):
    id: int
    name: str


class _Box(_Entry):
    image_id: int
    category_id: int
    bbox: Annotated[list[float], Field(min_length=4, max_length=4)]
    area: float
    iscrowd: Literal[0, 1]


class _RunLengths(_Entry):
    size: tuple[int, int]
    counts: str | list[int]


# pycocotools walks along a polygon in steps of a fifth of a pixel, so one corner far away fills the memory.
_Corner = Annotated[float, Field(ge=-1e5, le=1e5)]


class _Outline(_Box):
    segmentation: list[list[_Corner]] | _RunLengths


_Object = TypeVar("_Object", bound=_Box)


class _File(_Entry, Generic[_Object]):
    images: list[_Image]
    categories: list[_Category]
    annotations: list[_Object]


def read_annotations(path: Path, masks: bool) -> Annotations:
    """Read and check an annotation file.

    Annotations are numbered anew from 1: pycocotools takes 0 for none.

    Args:
        path: JSON file in COCO's format.
        masks: whether outlines are needed; else they are not looked at.

    Raises:
        BingoError: the file is missing, no JSON, or not in COCO's format; it has no images, categories or annotations,
            one number twice, an annotation of an unknown image or category, or an outline that is none.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise BingoError(f"{path}: annotations cannot be read ({error.strerror})") from error
    kind: type[_File[Any]] = _File[_Outline] if masks else _File[_Box]
    try:
        file = kind.model_validate_json(content)
    except ValidationError as error:
        fault = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in fault["loc"])
        raise BingoError(f"{path}: not in COCO's format: {where}{': ' if where else ''}{fault['msg']}") from error
    for name in ("images", "categories", "annotations"):
        if not getattr(file, name):
            raise BingoError(f"{path}: has no {name}")
    images = _by_number(path, "images", file.images)
    categories = {number: category.name for number, category in _by_number(path, "categories", file.categories).items()}
    objects: dict[int, list[dict[str, Any]]] = {number: [] for number in images}
    for place, entry in enumerate(file.annotations):
        if entry.image_id not in images:
            raise BingoError(f"{path}: annotations.{place} is of image {entry.image_id}, which is not among the images")
        if entry.category_id not in categories:
            raise BingoError(f"{path}: annotations.{place} is of category {entry.category_id}, which is not defined")
        found = entry.model_dump(include=set(_Box.model_fields)) | {"id": place + 1}
        if isinstance(entry, _Outline):
            found["segmentation"] = _encoded(path, place, entry, images[entry.image_id])
        objects[entry.image_id].append(found)
    return Annotations(
        path=path,
        digest=hashlib.sha256(content).hexdigest(),
        categories=categories,
        images=[image.model_dump() for image in images.values()],
        objects=list(objects.values()),
        masks=masks,
    )


_Numbered = TypeVar("_Numbered", _Image, _Category)


def _by_number(path: Path, name: str, entries: list[_Numbered]) -> dict[int, _Numbered]:
    numbered = {entry.id: entry for entry in entries}
    if len(numbered) < len(entries):
        (twice, _), *_ = Counter(entry.id for entry in entries).most_common(1)
        raise BingoError(f"{path}: {name} have the id {twice} more than once")
    return numbered


def _encoded(path: Path, place: int, entry: _Outline, image: _Image) -> dict[str, Any]:
    found = entry.segmentation
    try:
        return encode(found if isinstance(found, list) else found.model_dump(), image.height, image.width)
    except ValueError as error:
        raise BingoError(f"{path}: annotations.{place}.segmentation {error}") from error
