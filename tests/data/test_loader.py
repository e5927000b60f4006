import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms.v2 import functional as V

from bingo.bags.bags import Bags
from bingo.config import Preprocessing
from bingo.data.images import open_images
from bingo.data.listing import read_listing
from bingo.data.loader import TrainingBatches
from bingo.errors import BingoError
from bingo.methods.method import ViewRequest
from bingo.views.parameters import draw
from bingo.views.recipes import RECIPES

COUNT, BATCH, SEED, EPOCHS = 13, 4, 5, 3
REQUESTS = (ViewRequest("anchor", 0), ViewRequest("anchor", 1), ViewRequest("positive", 2))
PREPROCESSING = Preprocessing(size=12, resize=14)
CPU = torch.device("cpu")
# Coarse blocks, so that even JPEG keeps most of them.
PIXELS = np.random.default_rng(0).integers(0, 256, (COUNT, 6, 5, 3), dtype=np.uint8).repeat(4, 1).repeat(4, 2)


def neighbour_bags(size=2):
    """The bag of image i holds the next ``size`` images."""
    members = (np.arange(COUNT)[:, None] + np.arange(1, size + 1)) % COUNT
    return Bags(np.arange(COUNT), np.arange(COUNT + 1) * size, members.ravel(), includes_anchor=False)


def batches_of(listing, requests=REQUESTS, recipe="paper", batch_size=BATCH, seed=SEED, bags=None):
    images, bags = open_images(listing), bags or neighbour_bags()
    return TrainingBatches(images, requests, RECIPES[recipe], PREPROCESSING, batch_size, seed, bags)


def numbers(batches):
    """Every number of every batch."""
    return [
        [batch.anchors.tolist(), *([view.pixels, *vars(view.parameters).values()] for view in batch.views)]
        for batch in batches
    ]


def equal(first, second):
    """Whether nested lists of tensors are the same bit for bit."""
    if isinstance(first, list):
        return len(first) == len(second) and all(map(equal, first, second))
    if isinstance(first, torch.Tensor):
        return first.dtype == second.dtype and torch.equal(first, second)
    return first == second


@pytest.fixture
def folder_listing(tmp_path, list_images):
    """List the images as files of many sizes: JPEG, and a few PNG."""
    (tmp_path / "train").mkdir()
    for i, pixels in enumerate(PIXELS):
        image = Image.fromarray(pixels).resize((20 + i, 24 + i % 3))
        image.save(tmp_path / "train" / f"{i:02d}.{'png' if i % 5 == 0 else 'jpg'}")
    return read_listing(list_images(train=tmp_path / "train"), "train")


@pytest.fixture
def array_listing(tmp_path, list_images, monkeypatch):
    """List the images as a named set."""
    for place in ("bingo.data.images", "bingo.data.listing"):
        monkeypatch.setattr(f"{place}.load_arrays", lambda *_: (PIXELS, np.arange(COUNT)))
    return read_listing(list_images(tmp_path / "array.h5", source="cifar10", root=tmp_path), "train")


@pytest.fixture(params=["array", "folder"])
def data(request):
    return batches_of(request.getfixturevalue(f"{request.param}_listing"))


@pytest.mark.parametrize("workers", [1, 2])
def test_any_number_of_workers_yields_the_same_batches(data, workers):
    assert equal(numbers(data.batches(0, EPOCHS, workers)), numbers(data.batches(0, EPOCHS, 0)))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_later_start_yields_the_rest_of_the_same_batches(data, workers):
    whole = numbers(data.batches(0, EPOCHS, 0))
    assert len(whole) == EPOCHS * data.steps
    assert equal(numbers(data.batches(1, EPOCHS, workers)), whole[data.steps :])


def test_a_batch_depends_on_epoch_and_step_alone(data):
    positions = [(epoch, step) for epoch in range(EPOCHS) for step in range(data.steps)]
    forwards = numbers(data[position] for position in positions)
    backwards = numbers(data[position] for position in reversed(positions))
    assert equal(forwards, backwards[::-1])
    assert equal(forwards, numbers(data.batches(0, EPOCHS, 0)))


def test_batches_survive_the_journey_to_a_worker_that_is_not_forked(folder_listing):
    data = batches_of(folder_listing)
    expected = numbers([data[1, 2]])
    assert equal(numbers([pickle.loads(pickle.dumps(data))[1, 2]]), expected)


def test_another_seed_yields_other_batches(array_listing):
    first, second = (numbers(batches_of(array_listing, seed=seed).batches(0, 1, 0)) for seed in (0, 1))
    for one, other in zip(first, second, strict=True):
        assert one[0] != other[0]
        assert all(not torch.equal(a[1], b[1]) for a, b in zip(one[1:], other[1:], strict=True))


def test_an_epoch_shows_every_image_once_but_for_an_incomplete_last_batch(array_listing):
    data = batches_of(array_listing, requests=())
    assert data.steps == 3
    epochs = [np.concatenate([data[epoch, step].anchors for step in range(3)]) for epoch in range(20)]
    for anchors in epochs:
        assert len(set(anchors.tolist())) == 12
    assert len({tuple(anchors) for anchors in epochs}) == 20
    # None is always the one left out.
    left_out = [({*range(COUNT)} - {*anchors.tolist()}).pop() for anchors in epochs]
    assert len(set(left_out)) > 5


def test_positives_are_members_of_the_anchors_bags(data):
    data.bags = neighbour_bags(size=1)
    for batch in data.batches(0, 1, 0):
        partners = (batch.anchors + 1) % COUNT
        size = data.images.listing.size[partners]
        parameters = draw(data.recipe, SEED, partners, 0, 2, size)
        assert equal([*vars(batch.views[2].parameters).values()], [*vars(parameters).values()])
        if not batch.views[2].cropped:
            assert torch.equal(batch.views[2].pixels, data.images.fetch(partners))


def test_positives_change_from_epoch_to_epoch(array_listing):
    data = batches_of(array_listing, requests=(ViewRequest("positive", 2),), batch_size=COUNT)
    position = {image.numpy().tobytes(): i for i, image in enumerate(data.images.fetch(np.arange(COUNT)))}
    drawn = {anchor: set() for anchor in range(COUNT)}
    for batch in data.batches(0, 16, 0):
        for anchor, image in zip(batch.anchors.tolist(), batch.views[0].pixels, strict=True):
            drawn[anchor].add(position[image.numpy().tobytes()])
    assert drawn == {anchor: {(anchor + 1) % COUNT, (anchor + 2) % COUNT} for anchor in range(COUNT)}


def test_a_view_can_be_drawn_again_from_seed_index_epoch_and_view(data):
    for epoch in (0, 2):
        batch = data[epoch, 1]
        for request, view in zip(REQUESTS[:2], batch.views[:2], strict=True):
            for row, anchor in enumerate(batch.anchors):
                size = data.images.listing.size[[anchor]]
                again = draw(data.recipe, SEED, np.array([anchor]), epoch, request.view, size)
                for name, value in vars(again).items():
                    assert torch.equal(getattr(view.parameters, name)[row], value[0]), name


def test_a_rendered_view_is_the_chain_of_torchvisions_functions(array_listing):
    data = batches_of(array_listing, batch_size=COUNT)
    adjust = (V.adjust_brightness, V.adjust_contrast, V.adjust_saturation, V.adjust_hue)
    (batch,) = data.batches(0, 1, 0)
    view = batch.views[1]
    found, p = data.render(view, CPU), view.parameters
    assert found.dtype == torch.float32
    assert found.is_contiguous(memory_format=torch.channels_last)
    for i, anchor in enumerate(batch.anchors):
        image = torch.from_numpy(PIXELS[anchor]).permute(2, 0, 1) / 255
        image = V.resized_crop(image, *p.box[i].tolist(), [12, 12], antialias=True)
        if p.flip[i]:
            image = V.horizontal_flip(image)
        for step in p.order[i].tolist():
            image = adjust[step](image, p.factor[i, step].item())
        if p.grayscale[i]:
            image = V.rgb_to_grayscale(image, num_output_channels=3)
        if p.sigma[i] > 0:
            image = V.gaussian_blur(image, [17, 17], [p.sigma[i].item()])
        expected = V.normalize(image, PREPROCESSING.mean, PREPROCESSING.std)
        assert torch.allclose(found[i], expected, atol=1e-4, rtol=0)


def test_the_same_images_as_files_and_as_an_array_give_the_same_views(array_listing, tmp_path, list_images):
    (tmp_path / "png").mkdir()
    for i, pixels in enumerate(PIXELS):
        Image.fromarray(pixels).save(tmp_path / "png" / f"{i:02d}.png")
    files = read_listing(list_images(tmp_path / "png.h5", train=tmp_path / "png"), "train")
    # Crops and flips alone, since colour steps would enlarge the rounding of crops to bytes.
    from_array, from_files = (batches_of(listing, recipe="probe") for listing in (array_listing, files))
    for one, other in zip(from_array.batches(0, 1, 0), from_files.batches(0, 1, 0), strict=True):
        assert one.anchors.tolist() == other.anchors.tolist()
        for first, second in zip(one.views, other.views, strict=True):
            assert [first.cropped, second.cropped] == [False, True]
            assert equal([*vars(first.parameters).values()], [*vars(second.parameters).values()])
            difference = from_array.render(first, CPU) - from_files.render(second, CPU)
            assert difference.abs().max() <= 1.01 / 255 / min(PREPROCESSING.std)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_users_fault_in_a_worker_arrives_as_one_line(folder_listing, workers):
    path = folder_listing.root / folder_listing.paths[3]
    data = batches_of(folder_listing)
    path.unlink()
    with pytest.raises(BingoError) as error:
        list(data.batches(0, 1, workers))
    assert error.type is BingoError
    assert str(error.value) == f"{path}: cannot be read (No such file or directory); list the data anew"


def test_a_fault_of_the_software_in_a_worker_keeps_its_traceback(folder_listing):
    data = batches_of(folder_listing)
    data.images.listing = replace(folder_listing, paths=None)
    with pytest.raises(AssertionError, match="_read"):
        list(data.batches(0, 1, 1))


def test_fewer_images_than_a_batch_are_refused_with_the_key(array_listing):
    assert batches_of(array_listing, batch_size=COUNT).steps == 1
    with pytest.raises(BingoError, match="batch_size: 14 is more than the 13 training images"):
        batches_of(array_listing, batch_size=COUNT + 1)
