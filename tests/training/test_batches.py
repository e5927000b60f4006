from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as V

from bingo.bags.bags import Bags
from bingo.data.images import open_images
from bingo.data.listing import read_listing
from bingo.errors import BingoError
from bingo.study.method import View
from bingo.study.sections import Preprocessing
from bingo.training.batches import TrainingBatches
from bingo.views import apply
from bingo.views.parameters import draw, draw_for_teacher
from bingo.views.recipes import RECIPES

COUNT, BATCH, SEED, EPOCHS = 13, 4, 5, 3
VIEWS = {"query": View("anchor", 0), "key": View("anchor", 1), "member": View("positive", 2)}
# What both networks see, what the student alone sees, and what the teacher alone sees, of anchor and member.
TEACHER_VIEWS = {
    "shared": View("anchor", 0, teacher=True),
    "own": View("anchor", 0),
    "target": View("anchor", 1, teacher=True, student=False),
    "member target": View("positive", 1, teacher=True, student=False),
}
PREPROCESSING = Preprocessing(size=12, resize=14)
CPU = torch.device("cpu")
# Coarse blocks, so that even JPEG keeps most of them, and neither dark nor bright, so that bicubic resizing is not cut.
PIXELS = np.random.default_rng(0).integers(64, 192, (COUNT, 6, 5, 3), dtype=np.uint8).repeat(4, 1).repeat(4, 2)


def neighbour_bags(size=2):
    """The bag of image i holds the next ``size`` images."""
    members = (np.arange(COUNT)[:, None] + np.arange(1, size + 1)) % COUNT
    return Bags(np.arange(COUNT), np.arange(COUNT + 1) * size, members.ravel(), includes_anchor=False)


def batches_of(listing, views=VIEWS, recipe="paper", batch_size=BATCH, seed=SEED, bags=None, stored=None):
    images, bags = open_images(listing), bags or neighbour_bags()
    return TrainingBatches(images, views, RECIPES[recipe], PREPROCESSING, batch_size, seed, bags, stored)


def view_numbers(view):
    """Every number of a view."""
    return [view.pixels, *vars(view.parameters).values()]


def numbers(batches):
    """Every number of every batch."""
    return [
        [
            batch.rows["anchor"].tolist(),
            [batch.epoch, batch.step, [[name, rows.tolist()] for name, rows in batch.rows.items()]],
            *([name, *view_numbers(view)] for name, view in batch.views.items()),
        ]
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
        monkeypatch.setattr(f"{place}.load_arrays", lambda *_: (PIXELS, np.arange(COUNT) % 10))
    return read_listing(list_images(tmp_path / "array.h5", source="cifar10", root=tmp_path), "train")


@pytest.fixture
def array_data(array_listing):
    return batches_of(array_listing)


@pytest.fixture(params=["array", "folder"])
def data(request):
    return batches_of(request.getfixturevalue(f"{request.param}_listing"))


def test_workers_yield_the_same_batches(data):
    assert equal(numbers(data.batches(0, EPOCHS, 2)), numbers(data.batches(0, EPOCHS, 0)))


@pytest.mark.parametrize(("epoch", "step", "workers"), [(1, 0, 2), (1, 2, 0)])
def test_a_later_start_yields_the_rest_of_the_same_batches(epoch, step, workers, array_data):
    whole = numbers(array_data.batches(0, EPOCHS, 0))
    assert len(whole) == EPOCHS * array_data.steps
    assert equal(numbers(array_data.batches(epoch, EPOCHS, workers, step)), whole[epoch * array_data.steps + step :])


def test_a_batch_depends_on_epoch_and_step_alone(data):
    positions = [(epoch, step) for epoch in range(EPOCHS) for step in range(data.steps)]
    forwards = numbers(data[position] for position in positions)
    backwards = numbers(data[position] for position in reversed(positions))
    assert equal(forwards, backwards[::-1])
    assert equal(forwards, numbers(data.batches(0, EPOCHS, 0)))


def test_an_epoch_shows_every_image_once_but_for_an_incomplete_last_batch(array_listing):
    data = batches_of(array_listing, views={})
    assert data.steps == 3
    epochs = [np.concatenate([data[epoch, step].rows["anchor"] for step in range(3)]) for epoch in range(20)]
    for anchors in epochs:
        assert len(set(anchors.tolist())) == 12
    assert len({tuple(anchors) for anchors in epochs}) == 20
    # None is always the one left out.
    left_out = [({*range(COUNT)} - {*anchors.tolist()}).pop() for anchors in epochs]
    assert len(set(left_out)) > 5


def test_positives_are_members_of_the_anchors_bags(data):
    data.bags = neighbour_bags(size=1)
    for batch in data.batches(0, 1, 0):
        partners = (batch.rows["anchor"] + 1) % COUNT
        assert batch.rows["positive"].tolist() == partners.tolist()
        size, view = data.images.listing.size[partners], batch.views["member"]
        parameters = draw(data.recipe, SEED, partners, 0, 2, size)
        assert equal([*vars(view.parameters).values()], [*vars(parameters).values()])
        if not view.cropped:
            assert torch.equal(view.pixels, data.images.fetch(partners))


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_a_rendered_view_is_the_chain_of_torchvisions_functions(interpolation, array_listing):
    data = batches_of(array_listing, batch_size=COUNT)
    data.recipe = replace(data.recipe, interpolation=interpolation)
    adjust = (V.adjust_brightness, V.adjust_contrast, V.adjust_saturation, V.adjust_hue)
    (batch,) = data.batches(0, 1, 0)
    found, p = data.render(batch.views, CPU)["key"], batch.views["key"].parameters
    assert found.dtype == torch.float32
    assert found.is_contiguous(memory_format=torch.channels_last)
    for i, anchor in enumerate(batch.rows["anchor"]):
        image = torch.from_numpy(PIXELS[anchor]).permute(2, 0, 1) / 255
        image = V.resized_crop(image, *p.box[i].tolist(), [12, 12], InterpolationMode(interpolation), antialias=True)
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


@pytest.mark.parametrize("together", [1, 10**3, 10**9], ids=["one by one", "some", "all"])
def test_a_view_is_the_same_whatever_is_rendered_with_it(data, together, monkeypatch):
    batch = data[0, 0]
    expected = {name: data.render({name: view}, CPU)[name] for name, view in batch.views.items()}
    monkeypatch.setattr(apply, "_BLOCK_VALUES", together)
    found = data.render(batch.views, CPU)
    assert list(found) == list(batch.views)
    for name, images in found.items():
        assert images.is_contiguous(memory_format=torch.channels_last)
        assert torch.allclose(images, expected[name], atol=1e-5, rtol=0)


@pytest.mark.parametrize("workers", [0, 2])
def test_an_image_that_went_away_is_named(folder_listing, workers):
    data, path = batches_of(folder_listing), folder_listing.path(3)
    path.unlink()
    with pytest.raises(BingoError, match=rf"^{path}: ") as error:
        list(data.batches(0, 1, workers))
    assert "\n" not in str(error.value)


def test_fewer_images_than_a_batch_are_refused_with_the_key(array_listing):
    assert batches_of(array_listing, batch_size=COUNT).steps == 1
    with pytest.raises(BingoError, match=r"^batch_size: 14 .*\b13\b"):
        batches_of(array_listing, batch_size=COUNT + 1)


def drawn_for(batch, name):
    """Of each image that a view shows: its position, and the view's parameters as numbers."""
    rows = batch.rows[TEACHER_VIEWS[name].image].tolist()
    columns = [value.double().reshape(len(rows), -1) for value in vars(batch.views[name].parameters).values()]
    return dict(zip(rows, torch.cat(columns, 1).tolist(), strict=True))


def expected_for(data, batch, name, epoch):
    """The same by the functions that draw."""
    view, rows = TEACHER_VIEWS[name], batch.rows[TEACHER_VIEWS[name].image]
    arguments = (rows, epoch, view.slot, data.images.listing.size[rows])
    parameters = draw_for_teacher(data.recipe, *arguments) if view.teacher else draw(data.recipe, data.seed, *arguments)
    columns = [value.double().reshape(len(rows), -1) for value in vars(parameters).values()]
    return dict(zip(rows.tolist(), torch.cat(columns, 1).tolist(), strict=True))


@pytest.mark.parametrize("kind", ["array", "folder"])
def test_views_that_a_teacher_sees_are_drawn_without_the_seed_and_others_with_it(kind, request):
    data = batches_of(request.getfixturevalue(f"{kind}_listing"), TEACHER_VIEWS)
    for epoch in (0, 4):
        batch = data[epoch, 1]
        assert set(batch.views) == set(TEACHER_VIEWS)
        for name in TEACHER_VIEWS:
            assert drawn_for(batch, name) == expected_for(data, batch, name, epoch), name


@pytest.mark.parametrize("stored", [1, 2, 5])
def test_stored_views_return_after_so_many_epochs_and_those_for_the_teacher_alone_are_left_out(stored, array_listing):
    data = batches_of(array_listing, TEACHER_VIEWS, stored=stored)
    for epoch in range(5):
        batch = data[epoch, 2]
        assert list(batch.views) == ["shared", "own"]
        assert list(batch.rows) == ["anchor", "positive"]  # a stored output of a member needs its position
        assert drawn_for(batch, "shared") == expected_for(data, batch, "shared", epoch % stored)
        assert drawn_for(batch, "own") == expected_for(data, batch, "own", epoch)


def test_an_image_whose_views_are_all_stored_is_not_read(folder_listing, monkeypatch):
    views = {"anchor": View("anchor", 0), "target": View("positive", 0, teacher=True, student=False)}
    data = batches_of(folder_listing, views, stored=1)
    fetched, fetch = [], data.images.fetch
    monkeypatch.setattr(data.images, "fetch", lambda index: fetched.append(index.tolist()) or fetch(index))
    batch = data[0, 0]
    assert fetched == [batch.rows["anchor"].tolist()]
    assert not {*batch.rows["positive"].tolist()} <= {*batch.rows["anchor"].tolist()}


def test_without_drop_last_the_rest_of_an_epoch_is_a_smaller_batch(array_listing):
    images = open_images(array_listing)
    data = TrainingBatches(
        images, {"image": View("anchor", 0)}, RECIPES["small"], PREPROCESSING, BATCH, 0, None, drop_last=False
    )
    rows = [batch.rows["anchor"].tolist() for batch in data.batches(0, 1, 0)]
    assert [len(part) for part in rows] == [4, 4, 4, 1]
    assert sorted(row for part in rows for row in part) == list(range(COUNT))
