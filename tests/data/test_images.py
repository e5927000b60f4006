import numpy as np
import pytest
import torch

from bingo.data import images as module
from bingo.data.arrays import load_arrays
from bingo.data.decode import decode
from bingo.data.images import ArrayImages, FolderImages, open_images
from bingo.data.listing import read_listing
from bingo.errors import BingoError


@pytest.fixture
def folder(tmp_path, save_image, list_images):
    """Open three images, told from one another by size and content."""
    for number in range(3):
        save_image(tmp_path / "train" / f"{number}.png", number, (10 + number, 8))
    return FolderImages(read_listing(list_images(train=tmp_path / "train"), "train"))


def test_a_folder_hands_out_each_file_decoded_in_the_order_asked(folder):
    fetched = [picture.whole() for picture in folder.fetch(np.array([2, 0, 2]))]
    assert [image.shape for image in fetched] == [(3, 12, 8), (3, 10, 8), (3, 12, 8)]
    for image, number in zip(fetched, [2, 0, 2], strict=True):
        assert torch.equal(image, decode((folder.listing.root / f"{number}.png").read_bytes()))


def test_a_grey_set_hands_out_three_equal_channels_of_the_listed_images(list_images, tmp_path):
    listing = read_listing(list_images(source="demo", max_train=50), "train")
    fetched = open_images(listing).fetch(np.array([49, 0, 7]))
    expected = load_arrays("demo", tmp_path, "train")[0][listing.index[[49, 0, 7]], ..., 0]
    assert (fetched.shape, fetched.dtype) == ((3, 3, 28, 28), torch.uint8)
    for channel in range(3):
        assert np.array_equal(fetched[:, channel], expected)


@pytest.fixture
def coloured_set(monkeypatch):
    """Stand in for a named set: four coloured images of 6 by 5."""
    pixels = np.random.default_rng(0).integers(0, 256, (4, 6, 5, 3), dtype=np.uint8)
    labels = np.array([0, 1, -1, 1])
    for place in ("bingo.data.images", "bingo.data.listing"):
        monkeypatch.setattr(f"{place}.load_arrays", lambda *_: (pixels, labels))
    return pixels, labels


def test_a_coloured_set_hands_out_channels_first(coloured_set, list_images, tmp_path):
    listing = read_listing(list_images(source="cifar10", root=tmp_path), "train")
    assert listing.label.tolist() == [0, 1, -1, 1]
    fetched = open_images(listing).fetch(np.array([3, 1]))
    assert np.array_equal(fetched, coloured_set[0][[3, 1]].transpose(0, 3, 1, 2))


@pytest.mark.parametrize("changed", ["pixels", "labels"])
def test_a_set_that_is_not_the_listed_one_is_refused_by_name(changed, coloured_set, list_images, tmp_path, monkeypatch):
    listing = read_listing(list_images(source="cifar10", root=tmp_path, max_train=2), "train")
    pixels, labels = coloured_set[0].copy(), coloured_set[1].copy()
    if changed == "pixels":
        pixels[0, 0, 0, 0] ^= 1
    else:
        labels[0] = 1
    monkeypatch.setattr(module, "load_arrays", lambda *_: (pixels, labels))
    with pytest.raises(BingoError, match=f"cifar10 in {tmp_path} "):
        ArrayImages(listing)


def flip_last_pixels(path):
    content = bytearray(path.read_bytes())
    content[-20] ^= 4
    path.write_bytes(content)
    if path.suffix == ".jpg":  # a PNG has checksums of its own
        decode(bytes(content))


@pytest.mark.parametrize("suffix", ["png", "jpg"])
@pytest.mark.parametrize(
    "change",
    [
        lambda path: path.unlink(),
        lambda path: path.write_bytes(path.read_bytes()[:-30]),
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(path.read_bytes() + b"x"),
        lambda path: path.write_bytes(path.with_stem("0").read_bytes()),
        flip_last_pixels,
    ],
    ids=["deleted", "cut off", "emptied", "lengthened", "another image", "a byte"],
)
def test_an_image_changed_after_listing_is_refused_by_name(change, suffix, tmp_path, save_image, list_images):
    for number in range(2):
        path = save_image(tmp_path / "photos" / f"{number}.{suffix}", number, (64, 64))
    listing = read_listing(list_images(train=tmp_path / "photos"), "train")
    change(path)
    with pytest.raises(BingoError, match=rf"^{path}: "):
        list(FolderImages(listing).fetch(np.arange(2)))
