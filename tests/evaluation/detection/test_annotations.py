import hashlib
import json

import pytest

from bingo.evaluation.detection.annotations import read_annotations
from tests.conftest import refused

from .conftest import entry

SIZES = [(20, 30), (20, 30)]


def read_with_masks(path):
    return read_annotations(path, masks=True)


def test_annotations_are_read_image_by_image_and_numbered_from_1(write_coco):
    _, path = write_coco(SIZES, [entry((1, 2, 3, 4), image=2, category=7, id=50), entry((5, 6, 7, 8), image=2)])
    found = read_annotations(path, masks=False)
    assert found.digest == hashlib.sha256(path.read_bytes()).hexdigest()
    assert found.categories == {3: "dog", 7: "cat"}
    assert [image["file_name"] for image in found.images] == ["1.png", "2.png"]
    assert found.objects[0] == []
    common = {"image_id": 2, "iscrowd": 0}
    assert found.objects[1] == [
        common | {"id": 1, "category_id": 7, "bbox": [1, 2, 3, 4], "area": 12},
        common | {"id": 2, "category_id": 3, "bbox": [5, 6, 7, 8], "area": 56},
    ]


def test_outlines_are_read_only_if_masks_are_needed(write_coco):
    _, path = write_coco(SIZES, [entry((1, 2, 3, 4), segmentation=[])])
    assert read_annotations(path, masks=False).masks is False
    assert "annotations.0.segmentation" in refused(read_with_masks, path)
    _, path = write_coco(SIZES, [entry((1, 2, 3, 4))])
    assert read_with_masks(path).objects[0][0]["segmentation"]["size"] == [20, 30]


def put(section, number, **values):
    return lambda content: content[section][number].update(values)


def without(section, number, key):
    return lambda content: content[section][number].pop(key)


def emptied(section):
    return lambda content: content.update({section: []})


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda content: content.pop("categories"), "categories"),
        (lambda content: content.update(annotations={}), "annotations"),
        (emptied("annotations"), "annotations"),
        (without("images", 1, "file_name"), "images.1.file_name"),
        (without("annotations", 0, "iscrowd"), "annotations.0.iscrowd"),
        (put("annotations", 0, bbox=[1, 2, 3]), "annotations.0.bbox"),
        (put("annotations", 0, bbox=[1, 2, 3, float("nan")]), "annotations.0.bbox.3"),
        (put("annotations", 0, image_id=9), "annotations.0"),
        (put("annotations", 0, category_id=9), "annotations.0"),
        (put("annotations", 0, segmentation=[[0, 0, 2e9, 0, 5, 5]]), "annotations.0.segmentation"),
        (put("images", 1, id=1), "images"),
        (put("categories", 1, id=7), "categories"),
        (put("images", 0, height=0), "images.0.height"),
        (put("images", 0, id="1"), "images.0.id"),
    ],
)
def test_a_file_not_in_cocos_format_is_refused_by_the_key(change, named, write_coco):
    _, path = write_coco(SIZES, [entry((1, 2, 3, 4))])
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    assert named in refused(read_with_masks, path).removeprefix(f"{path}")


@pytest.mark.parametrize("content", [None, b"", b"[1, 2]", b'{"images": [', b"\xff\xd8\xff", b"null"])
def test_other_files_are_refused(content, tmp_path):
    path = tmp_path / "annotations.json"
    if content is not None:
        path.write_bytes(content)
    assert refused(read_with_masks, path)
