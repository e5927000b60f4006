import logging

import numpy as np
import pytest
import torch
from PIL import Image

from bingo.errors import BingoError
from bingo.evaluation.detection.annotations import read_annotations
from bingo.evaluation.detection.coco import CocoImages

from .conftest import entry

SIZE = [(20, 30)]


def require_refusal(path, call, *arguments):
    with pytest.raises(BingoError, match=f"^{path}: "):
        call(*arguments)


def test_labels_number_the_categories_in_order_from_1(open_coco):
    images = open_coco(SIZE, [entry((1, 2, 3, 4), category=7), entry((5, 6, 7, 8), category=3)])
    assert images.category_ids == [3, 7]
    assert images.target(0)["labels"].tolist() == [2, 1]


def test_boxes_and_masks_are_those_of_the_annotations(open_coco):
    target = open_coco(SIZE, [entry((1, 2, 3, 4)), entry((5, 6, 7.5, 8))]).target(0)
    assert target["boxes"].dtype == torch.float32
    assert target["boxes"].tolist() == [[1, 2, 4, 6], [5, 6, 12.5, 14]]
    assert target["labels"].dtype == torch.int64
    mask = np.zeros((20, 30), np.uint8)
    mask[2:6, 1:4] = 1
    assert target["masks"].dtype == torch.uint8
    assert np.array_equal(target["masks"][0].numpy(), mask)
    assert "masks" not in open_coco(SIZE, [entry((1, 2, 3, 4))], masks=False).target(0)


def test_boxes_end_at_the_images_edge(open_coco):
    target = open_coco(SIZE, [entry((-2, -1, 10, 5)), entry((25, 18, 10, 10))]).target(0)
    assert target["boxes"].tolist() == [[0, 0, 8, 4], [25, 18, 30, 20]]


def test_crowds_and_boxes_without_area_are_left_out_with_their_masks(open_coco, caplog):
    annotations = [
        entry((1, 1, 0, 5)),
        entry((2, 2, 6, 6), iscrowd=1),
        entry((10, 3, 4, 5), category=7),
        entry((40, 3, 4, 5)),  # outside
        entry((3, 3, -2, 4)),
        entry((3, 3, 4, 5), image=2, iscrowd=1),
        entry((3, 3, 1e-6, 5), image=3),
        entry((3, 3, 2, 2), image=4),
    ]
    images = open_coco([(20, 30)] * 5, annotations)
    target = images.target(0)
    assert target["boxes"].tolist() == [[10, 3, 14, 8]]
    assert target["labels"].tolist() == [2]
    assert target["masks"].shape == (1, 20, 30)
    assert target["masks"].sum() == 20
    with caplog.at_level(logging.INFO):
        assert images.trainable().tolist() == [0, 3]
    assert caplog.records[-1].args[1:] == (2, 2, 2, 4, 3)  # objects, images; left out: crowds, no area, no objects


def test_sets_with_nothing_to_learn_from_or_to_find_are_refused(open_coco, tmp_path):
    path, crowd = tmp_path / "annotations.json", entry((1, 2, 3, 4), iscrowd=1)
    images = open_coco(SIZE, [crowd, entry((1, 2, 0, 4))])
    require_refusal(path, images.trainable)
    images.require_objects()
    require_refusal(path, open_coco(SIZE, [crowd]).require_objects)


def test_a_missing_image_is_refused_before_any_is_read(write_coco):
    folder, path = write_coco(SIZE * 2, [entry((1, 2, 3, 4))])
    (folder / "2.png").unlink()
    require_refusal(folder / "2.png", CocoImages, folder, read_annotations(path, True))


def test_a_bad_image_is_refused_when_it_is_read(open_coco, tmp_path):
    images = open_coco(SIZE * 3, [entry((1, 2, 3, 4))])
    (tmp_path / "1.png").unlink()
    (tmp_path / "2.png").write_bytes((tmp_path / "2.png").read_bytes()[:50])
    Image.new("RGB", (20, 30)).save(tmp_path / "3.png")
    for position in range(3):
        require_refusal(tmp_path / f"{position + 1}.png", images.read, position)
