import hashlib
import json

import pytest

from bingo.evaluation.detection.annotations import read_annotations
from tests.conftest import refused

SIZES = [(20, 30), (20, 30)]


def test_what_the_file_says_is_what_is_read(write_coco, entry):
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


def test_outlines_are_read_only_where_masks_are_needed(write_coco, entry):
    _, path = write_coco(SIZES, [entry((1, 2, 3, 4), segmentation=[])])
    assert read_annotations(path, masks=False).masks is False
    assert "annotations.0.segmentation needs polygons" in refused(lambda p: read_annotations(p, masks=True), path)
    _, path = write_coco(SIZES, [entry((1, 2, 3, 4))])
    assert read_annotations(path, masks=True).objects[0][0]["segmentation"]["size"] == [20, 30]


def without(section, number, key):
    def change(content):
        del content[section][number][key]

    return change


def put(section, number, **values):
    def change(content):
        content[section][number].update(values)

    return change


def emptied(section):
    return lambda content: content.update({section: []})


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda content: content.pop("categories"), "categories: Field required"),
        (lambda content: content.pop("images"), "images: Field required"),
        (lambda content: content.update(annotations={}), "annotations: Input should be a valid"),
        (emptied("annotations"), "has no annotations"),
        (emptied("images"), "has no images"),
        (emptied("categories"), "has no categories"),
        (without("images", 1, "file_name"), "images.1.file_name: Field required"),
        (without("annotations", 0, "iscrowd"), "annotations.0.iscrowd: Field required"),
        (without("annotations", 0, "area"), "annotations.0.area: Field required"),
        (without("annotations", 0, "segmentation"), "annotations.0.segmentation: Field required"),
        (put("annotations", 0, bbox=[1, 2, 3]), "annotations.0.bbox: List should have at least 4"),
        (put("annotations", 0, bbox=[1, 2, 3, float("nan")]), "annotations.0.bbox.3: Input should be a finite"),
        (put("annotations", 0, image_id=9), "annotations.0 is of image 9"),
        (put("annotations", 0, category_id=9), "annotations.0 is of category 9"),
        (put("annotations", 0, segmentation=[[0, 0, 2e9, 0, 5, 5]]), "annotations.0.segmentation"),
        (put("annotations", 0, segmentation={"size": [20, 30], "counts": [1]}), "annotations.0.segmentation has run"),
        (put("images", 1, id=1), "images have the id 1 more than once"),
        (put("categories", 1, id=7), "categories have the id 7 more than once"),
        (put("images", 0, height=0), "images.0.height: Input should be greater than 0"),
        (put("images", 0, id="1"), "images.0.id: Input should be a valid integer"),
    ],
)
def test_what_is_not_cocos_format_is_refused(change, fault, write_coco, entry):
    _, path = write_coco(SIZES, [entry((1, 2, 3, 4))])
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    assert fault in refused(lambda p: read_annotations(p, masks=True), path)


@pytest.mark.parametrize("content", [b"", b"[1, 2]", b'{"images": [', b"\xff\xd8\xff", b"null"])
def test_what_is_no_json_object_is_refused(content, tmp_path):
    path = tmp_path / "annotations.json"
    path.write_bytes(content)
    assert "not in COCO's format" in refused(lambda p: read_annotations(p, masks=False), path)


def test_a_missing_file_is_refused(tmp_path):
    assert "No such file" in refused(lambda p: read_annotations(p, masks=False), tmp_path / "annotations.json")
    assert "cannot be read" in refused(lambda p: read_annotations(p, masks=False), tmp_path)
