import os
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


def test_another_seed_draws_other_images():
    labels = np.arange(200) % 4
    draws = [stratified_rows(labels, 0.1, 1, seed).tolist() for seed in range(20)]
    assert len({tuple(rows) for rows in draws}) == 20
    # All are drawn now and then: the share is not that of the first images, nor of the last.
    assert len({row for rows in draws for row in rows}) > 150


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
    counts = np.array([732, 755, 889, 1000, 1150, *[1300] * 86, *[1290] * 9])
    labels = np.repeat(np.arange(100), counts)
    for share, published in ((0.01, 12_811), (0.1, 128_116)):
        rows = stratified_rows(labels, share, 1, 0)
        assert len(rows) == pytest.approx(published / 10, rel=0.02)
        drawn = np.bincount(labels[rows], minlength=100)
        assert np.abs(drawn - share * counts).max() <= 0.5


def test_a_list_of_simclrs_form_names_rows(tmp_path):
    path = tmp_path / "1percent.txt"
    path.write_text("n01443537_16.JPEG\nn01440764_10026.JPEG\nflat.JPEG\n")
    rows = listed_rows(listing_of(NAMES), path)
    assert rows.tolist() == [0, 3, 4]
    assert rows.dtype == np.int64


@pytest.mark.parametrize(
    "content",
    [
        b"n01443537_2.JPEG\nn01440764_10027.JPEG",
        b"n01443537_2.JPEG\r\nn01440764_10027.JPEG\r\n",
        b"\n  n01443537_2.JPEG\n\nn01440764_10027.JPEG  \n\n",
    ],
    ids=["no last newline", "Windows", "blanks"],
)
def test_line_ends_and_blanks_do_not_matter(content, tmp_path):
    path = tmp_path / "list.txt"
    path.write_bytes(content)
    assert listed_rows(listing_of(NAMES), path).tolist() == [1, 2]


def refusal(listing, path):
    with pytest.raises(BingoError) as caught:
        listed_rows(listing, path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    return message


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "names no image"),
        (b" \n\n", "names no image"),
        (b"n01440764_10026.JPEG\nn09999999_1.JPEG\n", "names n09999999_1.JPEG, which is not among the training images"),
        (b"n01440764/n01440764_10026.JPEG\n", "names n01440764/n01440764_10026.JPEG, which is not among"),
        (b"n01440764_10026.jpeg\n", "names n01440764_10026.jpeg, which is not among"),
        (b"flat.JPEG\nn01443537_2.JPEG\nflat.JPEG\n", "1 file names stand for more than one image or line"),
        (b"\xff\xfe\x00flat.JPEG\n", "cannot be read as a list of image files"),
    ],
    ids=["empty", "blank", "of another set", "with folder", "another case", "twice", "no text"],
)
def test_a_list_that_does_not_name_images_once_each_is_refused(content, message, tmp_path):
    path = tmp_path / "list.txt"
    path.write_bytes(content)
    assert message in refusal(listing_of(NAMES), path)


def test_images_of_one_name_in_two_folders_are_refused(tmp_path):
    path = tmp_path / "list.txt"
    path.write_text("0.png\n1.png\n")
    names = ["ant/0.png", "ant/1.png", "bee/0.png", "bee/2.png"]
    assert "1 file names stand for more than one image" in refusal(listing_of(names), path)


def test_a_list_that_is_missing_or_a_folder_is_refused(tmp_path):
    for path in (tmp_path / "absent.txt", tmp_path):
        assert "cannot be read as a list of image files" in refusal(listing_of(NAMES), path)


def test_a_list_for_images_that_are_no_files_is_refused(tmp_path):
    path = tmp_path / "list.txt"
    path.write_text("flat.JPEG\n")
    named_set = Listing(**{**vars(listing_of(NAMES)), "source": "cifar10", "paths": None})
    assert "names files, but cifar10 has none" in refusal(named_set, path)
