import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bingo.data.listing import Listing
from bingo.errors import BingoError
from bingo.evaluation.subsets import listed_rows, stratified_rows

NAMES = [
    "n01440764/n01440764_10026.JPEG",
    "n01440764/n01440764_10027.JPEG",
    "n01443537/n01443537_2.JPEG",
    "n01443537/deeper/n01443537_16.JPEG",
    "flat.JPEG",
]


def listing_of(names):
    count = len(names)
    return Listing(
        source="folder",
        root=Path("/images"),
        split="train",
        label=np.zeros(count, dtype=np.int64),
        size=np.full((count, 2), 8),
        index=None,
        paths=np.array([os.fsencode(name) for name in names]),
        nbytes=np.ones(count, dtype=np.int64),
        classes=["one"],
        source_digest="0",
        digest="0",
    )


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(1, 60), min_size=1, max_size=6),
    st.floats(0, 1),
    st.integers(0, 3),
    st.integers(0, 2**32 - 1),
)
def test_every_class_gives_its_share(counts, share, least, seed):
    labels = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(counts)) * 3, counts))  # with gaps
    rows = stratified_rows(labels, share, least, seed)
    assert rows.dtype == np.int64
    assert (np.diff(rows) > 0).all()  # rising, so none twice
    assert ((rows >= 0) & (rows < len(labels))).all()
    for number, count in enumerate(counts):
        drawn = int((labels[rows] == 3 * number).sum())
        assert drawn >= min(least, count)
        assert drawn == min(least, count) or abs(drawn - share * count) <= 0.5
    np.testing.assert_array_equal(stratified_rows(labels.copy(), share, least, seed), rows)


def test_each_image_of_a_class_is_drawn_as_often_as_any_other():
    labels = np.arange(40) % 2
    times = np.zeros(40)
    for seed in range(600):
        times[stratified_rows(labels, 0.3, 1, seed)] += 1
    # Of 600 draws with probability 0.3: mean 180, deviation 11.2.
    assert times.sum() == 600 * 12
    assert np.abs(times - 180).max() < 4.5 * 11.2


def test_one_percent_of_a_tenth_of_imagenet_is_a_tenth_of_its_published_list():
    # ImageNet's classes hold 732 to 1300 images, 1281 on average; SimCLR's lists have 12,811 and 128,116 of 1,281,167.
    labels = np.repeat(np.arange(100), [732, 755, 889, 1000, 1150, *[1300] * 86, *[1290] * 9])
    for share, published in ((0.01, 12_811), (0.1, 128_116)):
        assert len(stratified_rows(labels, share, 1, 0)) == pytest.approx(published / 10, rel=0.02)


@pytest.mark.parametrize(
    ("content", "rows"),
    [
        (b"n01443537_16.JPEG\nn01440764_10026.JPEG\nflat.JPEG\n", [0, 3, 4]),
        (b"n01443537_2.JPEG\nn01440764_10027.JPEG", [1, 2]),
        (b"n01443537_2.JPEG\r\nn01440764_10027.JPEG\r\n", [1, 2]),
        (b"\n  n01443537_2.JPEG\n\nn01440764_10027.JPEG  \n\n", [1, 2]),
    ],
    ids=["as SimCLR's", "no last newline", "Windows", "blanks"],
)
def test_a_list_of_file_names_selects_rows(content, rows, tmp_path):
    path = tmp_path / "list.txt"
    path.write_bytes(content)
    found = listed_rows(listing_of(NAMES), path)
    assert found.tolist() == rows
    assert found.dtype == np.int64


def refused(listing, path, content=None, named=""):
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(BingoError, match=f"^{path}: .*{named}"):
        listed_rows(listing, path)


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (b"", ""),
        (b" \n\n", ""),
        (b"n01440764_10026.JPEG\nn09999999_1.JPEG\n", "n09999999_1.JPEG"),
        (b"n01440764/n01440764_10026.JPEG\n", "n01440764/n01440764_10026.JPEG"),
        (b"n01440764_10026.jpeg\n", "n01440764_10026.jpeg"),
        (b"flat.JPEG\nn01443537_2.JPEG\nflat.JPEG\n", r"\b1\b"),
        (b"\xff\xfe\x00flat.JPEG\n", ""),
    ],
    ids=["empty", "blank", "of another set", "with folder", "another case", "twice", "no text"],
)
def test_a_list_that_does_not_name_images_once_each_is_refused(content, named, tmp_path):
    refused(listing_of(NAMES), tmp_path / "list.txt", content, named)


def test_lists_that_cannot_be_used_are_refused(tmp_path):
    path = tmp_path / "list.txt"
    refused(listing_of(NAMES), path)
    refused(listing_of(NAMES), tmp_path)
    refused(listing_of(["ant/0.png", "ant/1.png", "bee/0.png", "bee/2.png"]), path, b"0.png\n1.png\n", r"\b1\b")
    refused(replace(listing_of(NAMES), source="cifar10", paths=None), path, b"flat.JPEG\n", "cifar10")
