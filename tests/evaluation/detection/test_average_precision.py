import contextlib
import io

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torch import nn

from bingo.evaluation.detection.average_precision import as_results, average_precision, detect_objects
from bingo.evaluation.detection.segmentation import encode_masks
from tests.stages.conftest import CPU

from .conftest import entry


def found(box, score, image=1, category=3):
    """Return a detection whose outline is its box of whole pixels, in an image of 60 x 80."""
    x, y, width, height = box
    mask = torch.zeros(1, 60, 80)
    mask[:, y : y + height, x : x + width] = 1
    common = {"image_id": image, "category_id": category, "score": score, "bbox": [float(v) for v in box]}
    return common | {"segmentation": encode_masks(mask)[0]}


def all_of(value):
    return pytest.approx({f"{kind}_ap{at}": value for kind in ("box", "mask") for at in ("", "50", "75")})


@pytest.fixture
def images(open_coco):
    """Two objects of category 3 in image 1, one of 7 in image 2, and an empty image 3."""
    objects = [entry((10, 10, 20, 10)), entry((40, 10, 10, 30)), entry((5, 5, 50, 40), image=2, category=7)]
    return open_coco([(60, 80)] * 3, objects)


PERFECT = [
    found((10, 10, 20, 10), 0.9),
    found((40, 10, 10, 30), 0.7),
    found((5, 5, 50, 40), 0.3, image=2, category=7),
]


@pytest.mark.parametrize(
    ("results", "expected"),
    [
        (PERFECT, 100),
        ([], 0),
        # Wrong category, wrong image.
        ([found((10, 10, 20, 10), 0.9, category=7), found((5, 5, 50, 40), 0.9, image=3, category=7)], 0),
        # A false detection between two true ones: precision is 1 up to recall 1/2 (51 of COCO's 101 places), then 2/3.
        ([*PERFECT, found((60, 40, 10, 10), 0.8)], 100 * ((51 + 50 * 2 / 3) / 101 + 1) / 2),
        # A detection in an empty image: the best one of category 7 is false, so precision is 1/2 everywhere.
        ([*PERFECT, found((5, 5, 50, 40), 0.8, image=3, category=7)], 100 * (1 + 1 / 2) / 2),
    ],
    ids=["perfect", "none", "wrong", "false between true", "in an empty image"],
)
def test_average_precision_is_that_of_the_closed_form(results, expected, images):
    before = repr(images.annotations), repr(results)
    assert average_precision(images, results) == all_of(expected)
    assert (repr(images.annotations), repr(results)) == before


def test_values_are_those_of_cocos_own_summary(open_coco):
    random = np.random.default_rng(0)

    def boxes(n):
        corner, extent = random.integers(0, 30, (n, 2)), random.integers(4, 28, (n, 2))
        return np.concatenate([corner, extent], axis=1).tolist()

    objects, results = [], []
    for image in range(1, 9):
        for box in boxes(4):
            category = int(random.choice([3, 7]))
            objects.append(entry(box, image=image, category=category, iscrowd=int(random.random() < 0.1)))
            near = [max(0, int(v + random.integers(-2, 3))) for v in box[:2]] + box[2:]
            results.append(found(near, float(random.random()), image, category))
        results += [found(box, float(random.random()), image) for box in boxes(2)]
    images = open_coco([(60, 80)] * 8, [o | {"id": n} for n, o in enumerate(objects, start=1)])
    metrics = average_precision(images, results)
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(images.annotations.path))
        for kind, name in (("bbox", "box"), ("segm", "mask")):
            evaluation = COCOeval(truth, truth.loadRes([dict(result) for result in results]), kind)
            evaluation.evaluate()
            evaluation.accumulate()
            evaluation.summarize()
            expected = [100 * value for value in evaluation.stats[:3]]
            assert [metrics[f"{name}_ap{at}"] for at in ("", "50", "75")] == pytest.approx(expected, rel=1e-9)
            assert 5 < expected[0] < 95


def test_detections_become_results_of_cocos_form():
    masks = torch.zeros(2, 1, 6, 8)
    masks[0, 0, 1:3, 2:5] = 0.51
    masks[1, 0] = 0.49
    detections = {
        "boxes": torch.tensor([[2.0, 1.0, 5.0, 3.0], [0.0, 0.0, 8.0, 6.5]]),
        "labels": torch.tensor([2, 1]),
        "scores": torch.tensor([0.75, 0.5]),
        "masks": masks,
    }
    first, second = as_results(detections, 41, [3, 7])
    assert first == {
        "image_id": 41,
        "category_id": 7,
        "bbox": [2.0, 1.0, 3.0, 2.0],
        "score": 0.75,
        "segmentation": encode_masks(masks[0] > 0)[0],
    }
    assert (second["category_id"], second["bbox"]) == (3, [0.0, 0.0, 8.0, 6.5])
    assert second["segmentation"] == encode_masks(torch.zeros(1, 6, 8))[0]
    empty = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=int), "scores": torch.zeros(0)}
    assert as_results(empty | {"masks": torch.zeros(0, 1, 6, 8)}, 1, [3, 7]) == []


class Clairvoyant(nn.Module):
    """Finds what is drawn in an image, by its brightness alone."""

    def forward(self, images):
        assert not self.training
        (image,) = images
        rows, columns = torch.nonzero(image[0] > 0, as_tuple=True)
        label = int((image.max() * 255).round())
        if not len(rows):
            return [{"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=int), "scores": torch.zeros(0)}]
        box = torch.stack([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]).float()
        return [{"boxes": box[None], "labels": torch.tensor([label]), "scores": torch.tensor([1.0])}]


@pytest.mark.parametrize("workers", [0, 1])
def test_every_image_is_shown_and_its_detections_are_filed_under_it(workers, open_coco, tmp_path):
    images = open_coco([(60, 80)] * 3, [entry((10, 10, 20, 10)), entry((5, 5, 50, 40), image=3, category=7)], False)
    for name, (x, y, width, height), label in (("1", (10, 10, 20, 10), 1), ("3", (5, 5, 50, 40), 2)):
        picture = np.zeros((60, 80, 3), np.uint8)
        picture[y : y + height, x : x + width] = label
        Image.fromarray(picture).save(tmp_path / f"{name}.png")
    results = detect_objects(Clairvoyant(), images, CPU, workers, "test")
    assert [(r["image_id"], r["category_id"]) for r in results] == [(1, 3), (3, 7)]
    assert average_precision(images, results)["box_ap"] == pytest.approx(100)
