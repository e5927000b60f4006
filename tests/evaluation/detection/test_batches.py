import numpy as np
import pytest
import torch
from PIL import Image

from bingo.errors import BingoError
from bingo.evaluation.detection.batches import DetectionBatches, flip, pictures
from tests.stages.conftest import CPU

from .conftest import entry

COLOURS = np.array([40, 90, 140, 190, 240])


def tight_box(mask):
    rows, columns = torch.nonzero(mask.amax(dim=1))[:, 0], torch.nonzero(mask.amax(dim=0))[:, 0]
    return [float(x) for x in (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)]


@pytest.fixture
def painted(open_coco, tmp_path):
    """Five images of different sizes; each has a rectangle in a colour of its own, off the middle, on black."""
    sizes = [(16, 20 + 2 * n) for n in range(5)]
    images = open_coco(sizes, [entry((2 + n, 3, 4, 5 + n), image=n + 1, category=3) for n in range(5)])
    for n, (height, width) in enumerate(sizes):
        picture = np.zeros((height, width, 3), np.uint8)
        picture[3 : 8 + n, 2 + n : 6 + n] = COLOURS[n]
        Image.fromarray(picture).save(tmp_path / f"{n + 1}.png")
    return images


def test_a_flip_mirrors_pixels_boxes_and_masks_alike(painted):
    pixels, target = painted.read(3), painted.target(3)
    mirrored, new = flip(pixels, target)
    assert torch.equal(mirrored, torch.from_numpy(pixels.numpy()[:, :, ::-1].copy()))
    drawn = (mirrored[0] > 0).to(torch.uint8)
    assert torch.equal(new["masks"][0], drawn)
    assert new["boxes"].tolist() == [tight_box(drawn)]
    assert new["boxes"].tolist() != target["boxes"].tolist()
    assert torch.equal(new["labels"], target["labels"])
    twice, back = flip(mirrored, new)
    assert torch.equal(twice, pixels)
    assert all(torch.equal(back[name], target[name]) for name in target)


def test_every_batch_holds_images_with_their_own_targets(painted):
    data = DetectionBatches(painted, 3, seed=0)
    flipped = 0
    for epoch in range(6):
        seen = []
        for step in range(data.steps):
            images, targets = data[epoch, step].on(CPU)
            for image, target in zip(images, targets, strict=True):
                assert image.dtype == torch.float32
                drawn = (image[0] > 0).to(torch.uint8)
                assert target["boxes"].tolist() == [tight_box(drawn)]
                assert torch.equal(target["masks"][0], drawn)
                assert image.shape[1:] == drawn.shape == target["masks"].shape[1:]
                n = COLOURS.tolist().index(round(float(image.max()) * 255))
                assert image.shape == (3, 16, 20 + 2 * n)
                flipped += target["boxes"][0, 0] != 2 + n
                seen.append(n)
        assert sorted(seen) == [0, 1, 2, 3, 4]
    assert 5 < flipped < 25


@pytest.mark.parametrize(("batch_size", "counts"), [(2, [2, 2]), (3, [3, 2]), (4, [4]), (5, [5]), (8, [5])])
def test_the_last_batch_is_dropped_only_if_it_is_a_single_image(batch_size, counts, painted):
    data = DetectionBatches(painted, batch_size, seed=0)
    assert [len(data[0, step].sizes) for step in range(data.steps)] == counts
    assert [data.count(step) for step in range(data.steps)] == counts


def contents(batches):
    return [(b.epoch, b.step, b.sizes, b.boxes.tolist(), b.pixels.tolist(), b.masks.tolist()) for b in batches]


def test_batches_depend_on_seed_epoch_and_step_alone(painted):
    data, generator = DetectionBatches(painted, 2, seed=0), torch.get_rng_state()
    whole = contents(data.batches(0, 3, workers=0))
    assert contents(data.batches(0, 3, workers=2)) == whole
    assert torch.equal(torch.get_rng_state(), generator)
    assert contents(data.batches(1, 3, workers=0)) == whole[2:]
    assert [batch[2:] for batch in whole[:2]] != [batch[2:] for batch in whole[2:4]]
    other = DetectionBatches(painted, 2, seed=1)
    assert contents(other.batches(0, 1, workers=0)) != whole[:2]


def test_images_without_objects_are_no_part_of_training(open_coco):
    annotations = [entry((1, 2, 3, 4), image=2), entry((1, 2, 3, 4), image=4), entry((1, 2, 3, 4), image=4)]
    data = DetectionBatches(open_coco([(10, 10 + n) for n in range(4)], annotations, masks=False), 4, seed=0)
    assert data.steps == 1
    batch = data[0, 0]
    assert sorted(zip(batch.sizes, batch.counts, strict=True)) == [((10, 11), 1), ((10, 13), 2)]
    assert batch.masks is None
    assert all(set(target) == {"boxes", "labels"} for target in batch.on(CPU)[1])


def test_a_single_image_is_refused(open_coco, tmp_path):
    with pytest.raises(BingoError, match=f"^{tmp_path / 'annotations.json'}: "):
        DetectionBatches(open_coco([(10, 10)] * 2, [entry((1, 2, 3, 4))]), 4, seed=0)


@pytest.mark.parametrize("workers", [0, 2])
def test_validation_images_come_in_order(workers, painted):
    found = list(pictures(painted, workers))
    assert [int(image.max()) for image in found] == COLOURS.tolist()
    assert [image.shape[2] for image in found] == [20, 22, 24, 26, 28]


@pytest.mark.parametrize("workers", [0, 1])
def test_an_error_reaches_the_user_from_a_worker_too(workers, painted, tmp_path):
    (tmp_path / "3.png").write_bytes(b"")
    for batches in (DetectionBatches(painted, 2, seed=0).batches(0, 2, workers), pictures(painted, workers)):
        with pytest.raises(BingoError, match=f"^{tmp_path / '3.png'}: "):
            list(batches)
