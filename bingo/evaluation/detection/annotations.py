"""Read and validate annotations in COCO format (cocodataset.org, data format: object detection)."""

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
    """The contents of an annotation file."""

    path: Path
    digest: str
    """SHA-256 of the file."""
    categories: dict[int, str]
    """Category names by id."""
    images: list[dict[str, Any]]
    """`id`, `file_name`, `height` and `width` of each image."""
    objects: list[list[dict[str, Any]]]
    """Annotations of each image: `id`, `image_id`, `category_id`, `bbox` (x, y, width, height), `area`, `iscrowd` and,
    if ``masks``, `segmentation` as compressed RLE."""
    masks: bool
    """Whether the annotations include `segmentation`."""


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


# pycocotools samples polygon edges at every fifth of a pixel, so a corner far away would exhaust the memory.
_Corner = Annotated[float, Field(ge=-1e5, le=1e5)]


class _Outline(_Box):
    segmentation: list[list[_Corner]] | _RunLengths


_Object = TypeVar("_Object", bound=_Box)


class _File(_Entry, Generic[_Object]):
    images: list[_Image]
    categories: list[_Category]
    annotations: list[_Object]


def read_annotations(path: Path, masks: bool) -> Annotations:
    """Read and validate an annotation file.

    Annotations get new ids from 1, because pycocotools treats id 0 as no match.

    Args:
        path: JSON file in COCO format.
        masks: whether to read the segmentations.

    Raises:
        BingoError: the file does not exist or is not in COCO format; it has no images, categories or annotations; an
            id occurs twice; an annotation refers to an unknown image or category; or a segmentation is invalid.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise BingoError(f"{path}: annotations cannot be read ({error.strerror}); check the path") from error
    kind: type[_File[Any]] = _File[_Outline] if masks else _File[_Box]
    try:
        file = kind.model_validate_json(content)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        key = ".".join(str(part) for part in first["loc"])
        raise BingoError(f"{path}: not in COCO's format: {key}{': ' if key else ''}{first['msg']}") from error
    for name in ("images", "categories", "annotations"):
        if not getattr(file, name):
            raise BingoError(f"{path}: has no {name}; add at least one entry")
    images = _by_id(path, "images", file.images)
    categories = {id_: category.name for id_, category in _by_id(path, "categories", file.categories).items()}
    objects: dict[int, list[dict[str, Any]]] = {id_: [] for id_ in images}
    for i, entry in enumerate(file.annotations):
        if entry.image_id not in images:
            raise BingoError(f"{path}: annotations.{i} refers to image {entry.image_id}, which is not among the images")
        if entry.category_id not in categories:
            raise BingoError(f"{path}: annotations.{i} refers to category {entry.category_id}, which is not defined")
        annotation = entry.model_dump(include=set(_Box.model_fields)) | {"id": i + 1}
        if isinstance(entry, _Outline):
            annotation["segmentation"] = _rle(path, i, entry, images[entry.image_id])
        objects[entry.image_id].append(annotation)
    return Annotations(
        path=path,
        digest=hashlib.sha256(content).hexdigest(),
        categories=categories,
        images=[image.model_dump() for image in images.values()],
        objects=list(objects.values()),
        masks=masks,
    )


_WithId = TypeVar("_WithId", _Image, _Category)


def _by_id(path: Path, name: str, entries: list[_WithId]) -> dict[int, _WithId]:
    by_id = {entry.id: entry for entry in entries}
    if len(by_id) < len(entries):
        (duplicate, _), *_ = Counter(entry.id for entry in entries).most_common(1)
        raise BingoError(f"{path}: {name} contain the id {duplicate} more than once; make the ids unique")
    return by_id


def _rle(path: Path, index: int, entry: _Outline, image: _Image) -> dict[str, Any]:
    segmentation = entry.segmentation
    polygons_or_rle = segmentation if isinstance(segmentation, list) else segmentation.model_dump()
    try:
        return encode(polygons_or_rle, image.height, image.width)
    except ValueError as error:
        raise BingoError(f"{path}: annotations.{index}.segmentation {error}") from error
