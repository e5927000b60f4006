import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import scipy.ndimage
import torch
from PIL import Image

from bingo.bags import sheet
from bingo.bags.bags import Bags
from bingo.bags.groups import group_bags, label_bags, random_bags
from bingo.bags.kmeans import kmeans_bags
from bingo.bags.knn import knn_bags
from bingo.bags.sheet import draw_sheet
from bingo.data.listing import Listing

COUNT = 12  # as many anchors as a sheet shows
PALETTE = [(20 * i, 255 - 20 * i, 10 + 15 * (i % 3)) for i in range(COUNT)]
RED = (214, 39, 40)


class PlainImages:
    """Image i is of the colour i of the palette."""

    def __init__(self, label, classes):
        self.listing = Listing(
            source="plain",
            root=Path(),
            split="train",
            label=np.array(label),
            size=np.full((len(label), 2), 8),
            index=np.arange(len(label)),
            paths=None,
            nbytes=None,
            classes=classes,
            source_digest="",
            digest="",
        )

    def fetch(self, index):
        colours = torch.tensor([PALETTE[i] for i in index], dtype=torch.uint8)
        return colours[:, :, None, None].expand(-1, -1, 8, 8)


@pytest.fixture
def few_rows(monkeypatch):
    """Two anchors in place of a dozen: most of a sheet's time goes into its axes."""
    monkeypatch.setattr(sheet, "_ROWS", 2)


def unlabelled(count=COUNT):
    return PlainImages([-1] * count, [])


def neighbours(size, similarity=None):
    members = (np.arange(COUNT)[:, None] + 1 + np.arange(size)) % COUNT
    return Bags(
        np.arange(COUNT),
        np.arange(0, COUNT * size + 1, size),
        members.reshape(-1),
        includes_anchor=False,
        similarity=similarity,
    )


def made_bags(criterion):
    features = np.random.default_rng(0).normal(size=(COUNT, 3)).astype(np.float32)
    match criterion:
        case "knn":
            return knn_bags(features, 4)
        case "kmeans":
            return kmeans_bags(features, 3, 5, 0)
        case "label":
            return label_bags(np.array([0, 1, 1, -1, 0, 0, 1, -1, 0, 0, 2, 2]))
        case "random":
            return random_bags(COUNT, 4, 0)


def tiles(path):
    """The grid of palette colours in a picture, row by row from left to right."""
    pixels = np.asarray(Image.open(path).convert("RGB"))
    found = []
    for number, colour in enumerate(PALETTE):
        regions, _ = scipy.ndimage.label((pixels == colour).all(axis=2))
        for region in scipy.ndimage.find_objects(regions):
            height, width = (part.stop - part.start for part in region)
            if min(height, width) > 20:
                found.append((region[0].start, region[1].start, number))
    found.sort()
    rows = []
    for top, left, number in found:
        if not rows or top - rows[-1][0][0] > 10:
            rows.append([])
        rows[-1].append((top, left, number))
    return [[number for _, _, number in sorted(row, key=lambda tile: tile[1])] for row in rows]


def red_pixels(path):
    return int((np.asarray(Image.open(path).convert("RGB")) == RED).all(axis=2).sum())


def test_a_row_shows_the_anchor_and_then_the_members_of_its_bag(tmp_path):
    path = tmp_path / "sheet.png"
    draw_sheet(neighbours(2), unlabelled(), path)
    assert Image.open(path).format == "PNG"
    assert tiles(path) == [[anchor, (anchor + 1) % COUNT, (anchor + 2) % COUNT] for anchor in range(COUNT)]


def test_the_anchor_is_not_shown_again_among_the_members_of_its_group(tmp_path):
    groups = Bags(np.array([0, 0, 0, 1, 1, 2]), np.array([0, 3, 5, 6]), np.arange(6), includes_anchor=True)
    path = tmp_path / "sheet.png"
    draw_sheet(groups, unlabelled(6), path)
    assert tiles(path) == [[0, 1, 2], [1, 0, 2], [2, 0, 1], [3, 4], [4, 3], [5]]


@pytest.mark.parametrize("criterion", ["knn", "kmeans", "label", "random"])
def test_an_anchor_is_shown_with_all_others_of_a_small_bag(criterion, few_rows, tmp_path):
    bags = made_bags(criterion)
    draw_sheet(bags, unlabelled(), tmp_path / "sheet.png")
    rows = tiles(tmp_path / "sheet.png")
    assert len(rows) == 2
    for anchor, *shown in rows:
        bag = bags.bag_of[anchor]
        members = bags.members[bags.indptr[bag] : bags.indptr[bag + 1]].tolist()
        assert shown == [member for member in members if member != anchor]


def test_anchors_without_company_are_shown_alone(few_rows, tmp_path):
    draw_sheet(group_bags(np.arange(COUNT)), unlabelled(), tmp_path / "sheet.png")
    assert [len(row) for row in tiles(tmp_path / "sheet.png")] == [1, 1]


@pytest.mark.parametrize("anchor", [0, 1, 299_999, 300_000, 599_999])
def test_members_from_all_over_a_huge_group_are_shown_and_it_is_not_copied(anchor):
    groups = group_bags(np.zeros(600_000, dtype=np.int64))
    tracemalloc.start()
    shown = groups.members[sheet._members(groups, anchor)]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(set(shown)) == 10
    assert anchor not in shown
    gaps = np.diff([0, *shown, 600_000])
    assert gaps.max() <= 600_000 // 5
    assert peak < 50_000


def test_the_nearest_of_many_neighbours_are_shown():
    np.testing.assert_array_equal(sheet._members(neighbours(30), 0), np.arange(10))


def test_at_most_ten_members_are_shown(few_rows, tmp_path):
    groups = Bags(np.zeros(COUNT, np.int64), np.array([0, COUNT]), np.arange(COUNT), includes_anchor=True)
    path = tmp_path / "sheet.png"
    draw_sheet(groups, unlabelled(), path)
    assert [len(row) for row in tiles(path)] == [11, 11]


def test_members_of_another_class_and_only_these_have_a_red_frame(few_rows, tmp_path):
    pictures = {}
    for name, label, classes in (
        ("same", [0] * COUNT, ["a", "b"]),
        ("mixed", [0, 1] * 6, ["a", "b"]),
        ("unknown", [-1] * COUNT, []),
    ):
        pictures[name] = tmp_path / f"{name}.png"
        draw_sheet(neighbours(1), PlainImages(label, classes), pictures[name])
    assert red_pixels(pictures["same"]) == red_pixels(pictures["unknown"]) == 0
    assert red_pixels(pictures["mixed"]) > 200


def test_equal_bags_give_equal_bytes(few_rows, tmp_path):
    bags = neighbours(2, similarity=np.linspace(1, 0, 2 * COUNT, dtype=np.float32))
    for name in ("first.png", "second.png"):
        draw_sheet(bags, PlainImages([0, 1] * 6, ["cat", "dog"]), tmp_path / name)
    assert (tmp_path / "first.png").read_bytes() == (tmp_path / "second.png").read_bytes()


def test_similarities_are_written_below_the_members(few_rows, tmp_path):
    images = unlabelled()
    for name, similarity in (("without", None), ("with", np.full(COUNT, 0.5, np.float32))):
        draw_sheet(neighbours(1, similarity), images, tmp_path / f"{name}.png")
    dark = {
        name: int((np.asarray(Image.open(tmp_path / f"{name}.png").convert("L")) < 60).sum())
        for name in ("without", "with")
    }
    assert dark["with"] > dark["without"] + 20
