import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import scipy.ndimage
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from bingo.bags.bags import Bags
from bingo.bags.groups import group_bags
from bingo.data.listing import Listing
from bingo.errors import BingoError
from bingo.philox import Stream, permutation
from bingo.report import sheet
from bingo.report.sheet import choose_anchors, draw_sheet

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


FEW = np.array([3, 8])
"""Most of a sheet's time goes into its axes."""


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
    draw_sheet(neighbours(2), unlabelled(), np.array([8, 3, 11]), path)
    assert Image.open(path).format == "PNG"
    assert tiles(path) == [[8, 9, 10], [3, 4, 5], [11, 0, 1]]


def test_the_anchor_is_not_shown_again_among_the_members_of_its_group(tmp_path):
    groups = Bags(np.array([0, 0, 0, 1, 1, 2]), np.array([0, 3, 5, 6]), np.arange(6), includes_anchor=True)
    path = tmp_path / "sheet.png"
    draw_sheet(groups, unlabelled(6), np.arange(6), path)
    assert tiles(path) == [[0, 1, 2], [1, 0, 2], [2, 0, 1], [3, 4], [4, 3], [5]]


@pytest.mark.parametrize("anchor", [0, 1, 29_999, 30_000, 59_999])
def test_members_from_all_over_a_huge_group_are_shown_and_it_is_not_copied(anchor):
    groups = group_bags(np.zeros(60_000, dtype=np.int64))
    tracemalloc.start()
    shown = groups.members[sheet._members(groups, anchor)]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(set(shown)) == 10
    assert anchor not in shown
    gaps = np.diff([0, *shown, 60_000])
    assert gaps.max() <= 60_000 // 5
    assert peak < 50_000


def test_at_most_ten_members_are_shown_and_of_neighbours_the_nearest(tmp_path):
    np.testing.assert_array_equal(sheet._members(neighbours(30), 0), np.arange(10))
    groups = Bags(np.zeros(COUNT, np.int64), np.array([0, COUNT]), np.arange(COUNT), includes_anchor=True)
    path = tmp_path / "sheet.png"
    draw_sheet(groups, unlabelled(), FEW, path)
    assert [len(row) for row in tiles(path)] == [11, 11]


def test_members_of_another_class_and_only_these_have_a_red_frame(tmp_path):
    pictures = {}
    for name, label, classes in (
        ("same", [0] * COUNT, ["a", "b"]),
        ("mixed", [0, 1] * 6, ["a", "b"]),
        ("unknown", [-1] * COUNT, []),
        ("half", [0, -1] * 6, ["a"]),
    ):
        pictures[name] = tmp_path / f"{name}.png"
        draw_sheet(neighbours(1), PlainImages(label, classes), FEW, pictures[name])
    assert red_pixels(pictures["same"]) == red_pixels(pictures["unknown"]) == red_pixels(pictures["half"]) == 0
    assert red_pixels(pictures["mixed"]) > 200


@pytest.fixture
def drawn(monkeypatch, tmp_path):
    """Draw a sheet and return its figure."""
    figures = []

    def draw(*arguments):
        with monkeypatch.context() as patch:
            patch.setattr(sheet.plt, "close", figures.append)
            draw_sheet(*arguments, tmp_path / "sheet.png")
        return figures[-1]

    yield draw
    for figure in figures:
        sheet.plt.close(figure)


def test_a_frame_of_another_class_is_seen_without_its_colour(drawn):
    figure = drawn(neighbours(2), PlainImages([0, 0, 1] * 4, ["cat", "dog"]), np.array([0]))
    anchor, same, other = figure.axes
    assert [axis.get_title() for axis in figure.axes] == ["anchor cat", "cat", "≠ dog"]
    for frame in (anchor.spines["left"], same.spines["left"]):
        assert frame.get_linestyle() != other.spines["left"].get_linestyle()
        assert other.spines["left"].get_linewidth() > 3 * frame.get_linewidth()


def test_long_names_of_classes_do_not_run_into_the_next_image(drawn):
    name = "African hunting dog, hyena dog, Cape hunting dog, Lycaon pictus"
    figure = drawn(neighbours(2), PlainImages([0, 1] * 6, [name, name[1:]]), FEW)
    for row in np.array(figure.axes).reshape(2, 3):
        titles = [axis.title.get_window_extent() for axis in row]
        assert titles[0].x1 < titles[1].x0
        assert titles[1].x1 < titles[2].x0
        assert titles[2].x1 <= figure.bbox.x1 + 1


def test_equal_bags_give_equal_bytes(tmp_path):
    bags = neighbours(2, similarity=np.linspace(1, 0, 2 * COUNT, dtype=np.float32))
    for name in ("first.png", "second.png"):
        draw_sheet(bags, PlainImages([0, 1] * 6, ["cat", "dog"]), FEW, tmp_path / name)
    assert (tmp_path / "first.png").read_bytes() == (tmp_path / "second.png").read_bytes()


def test_similarities_are_written_below_the_members(tmp_path):
    dark = []
    for similarity in (None, np.full(COUNT, 0.5, np.float32)):
        draw_sheet(neighbours(1, similarity), unlabelled(), FEW, tmp_path / "sheet.png")
        dark.append(int((np.asarray(Image.open(tmp_path / "sheet.png").convert("L")) < 60).sum()))
    assert dark[1] > dark[0] + 20


def shares_by_hand(bags, label):
    """Of each image the share of others in its bag with its class, and the similarity of its bag, one by one."""
    shares, similarities = {}, {}
    for image in range(len(label)):
        places = range(bags.indptr[bags.bag_of[image]], bags.indptr[bags.bag_of[image] + 1])
        others = [int(bags.members[place]) for place in places if bags.members[place] != image]
        known = [other for other in others if label[other] >= 0]
        if label[image] >= 0 and known:
            shares[image] = sum(label[other] == label[image] for other in known) / len(known)
        if bags.similarity is not None:
            similarities[image] = np.mean([float(bags.similarity[place]) for place in places])
    return shares, similarities


def chosen_by_hand(bags, label, page):
    """The page, by sorting all images and going down the list."""
    drawn = permutation(0, Stream.SHEET, 0, len(label)).tolist()
    if page in ("random", "more"):
        return sorted(drawn[:12] if page == "random" else drawn[12:24])
    shares, similarities = shares_by_hand(bags, label)
    sign = -1 if page == "best" else 1
    ranked = sorted(
        shares if (label >= 0).any() else similarities,
        key=lambda image: (
            sign * shares.get(image, 0),
            sign * round(similarities.get(image, 0), 6),
            drawn.index(image),
        ),
    )
    seen, chosen = set(), []
    for image in ranked:
        if bags.bag_of[image] not in seen:
            chosen.append(image)
        seen.add(bags.bag_of[image])
    return chosen[:12]


@st.composite
def bags_and_labels(draw):
    """Bags of any criterion, and labels of which some, all or none are known."""
    count = draw(st.integers(2, 60))
    random = np.random.default_rng(draw(st.integers(0, 10_000)))
    if draw(st.booleans()):
        size = draw(st.integers(1, min(count - 1, 5)))
        members = np.concatenate([random.permutation(np.delete(np.arange(count), i))[:size] for i in range(count)])
        indptr = np.arange(0, count * size + 1, size)
        values = np.round(random.random(count * size, dtype=np.float32) * 4) / 4  # many ties
        bags = Bags(np.arange(count), indptr, members, includes_anchor=False, similarity=values)
    else:
        bags = group_bags(random.integers(0, draw(st.integers(1, 20)), size=count))
    label = random.integers(draw(st.sampled_from([-1, 0])), draw(st.integers(1, 4)), size=count)
    return bags, np.full(count, -1) if draw(st.integers(0, 4)) == 0 else label


@settings(deadline=None, max_examples=150)
@given(case=bags_and_labels(), page=st.sampled_from(["random", "more", "best", "worst"]))
def test_anchors_are_those_that_come_first_by_share_and_similarity(case, page):
    bags, label = case
    expected = chosen_by_hand(bags, label, page)
    if not expected:
        with pytest.raises(BingoError):
            choose_anchors(bags, label, page)
        return
    found = choose_anchors(bags, label, page)
    assert found.tolist() == expected
    assert found.dtype == np.int64


@pytest.mark.parametrize(
    ("label", "bags", "page"),
    [
        ([0] * 12, neighbours(2), "more"),  # which needs more than twelve images
        ([-1] * 12, neighbours(2), "best"),  # labels or similarities
        ([0] * 12, group_bags(np.arange(12)), "worst"),  # a bag with two images that have labels
    ],
)
def test_pages_that_cannot_be_filled_are_refused(label, bags, page):
    with pytest.raises(BingoError, match=page):
        choose_anchors(bags, np.array(label), page)
