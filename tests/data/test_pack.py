import io
import json
import os
import zlib

import h5py
import numpy as np
import pytest
from PIL import Image
from torchvision.transforms.v2 import functional as V

from bingo.data import blocks
from bingo.data.decode import decode
from bingo.data.images import FolderImages, PackImages, open_images
from bingo.data.listing import read_listing
from bingo.errors import BingoError
from bingo.study.images import Pack
from bingo.study.jobs import PackJob
from tests.conftest import refused
from tests.stage import run_stage

SIZES = [(20, 31), (40, 24), (64, 64), (33, 90), (25, 25), (70, 50)]


@pytest.fixture
def listing_path(tmp_path, list_images):
    """List images of many sizes and formats in two classes."""
    for i, (height, width) in enumerate(SIZES):
        path = tmp_path / "train" / "ab"[i % 2] / f"{i}.{'png' if i == 3 else 'jpg'}"
        path.parent.mkdir(parents=True, exist_ok=True)
        coarse = np.random.default_rng(i).integers(40, 210, (4, 4, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC).save(path, quality=95)
    return list_images(train=tmp_path / "train")


@pytest.fixture
def pack(listing_path, tmp_path):
    """Pack the images; return the pack's path."""

    def packed(name="train.h5", threads=2, listing=listing_path, **settings):
        fields = {"split": "train", "pack": Pack(**settings), "listing": listing, "output": tmp_path / name}
        run_stage(PackJob, threads, **fields)
        return tmp_path / name

    return packed


@pytest.fixture
def small_blocks(monkeypatch):
    """Let a block hold two or three of the images, so that there are several."""
    monkeypatch.setattr(blocks, "BLOCK", 2500)


def contents(listing):
    return [picture.content for picture in open_images(listing).fetch(np.arange(len(listing)))]


def test_a_pack_of_untouched_bytes_is_the_folders_listing_with_its_images(listing_path, pack, small_blocks):
    folder, packed = read_listing(listing_path, "train"), read_listing(pack(), "train")
    assert isinstance(open_images(packed), PackImages)
    assert isinstance(open_images(folder), FolderImages)
    assert contents(packed.select(np.array([5, 0, 3]))) == [contents(packed)[row] for row in (5, 0, 3)]
    assert contents(packed) == [folder.path(i).read_bytes() for i in range(len(SIZES))]
    for name in ("label", "size", "paths", "nbytes", "crc32"):
        assert np.array_equal(getattr(packed, name), getattr(folder, name)), name
    assert (packed.digest, packed.source_digest, packed.classes) == (folder.digest, folder.source_digest, ["a", "b"])
    assert (packed.source, packed.split) == ("pack", "train")


@pytest.mark.parametrize("limit", [1, 2500, 10**6])
def test_blocks_are_contiguous_bounded_and_split_no_image(limit, pack, monkeypatch):
    monkeypatch.setattr(blocks, "BLOCK", limit)
    path = pack()
    listing, content = read_listing(path, "train"), path.read_bytes()
    with h5py.File(path) as file:
        stored, first = file["train/block"], file["train/first"][:].tolist()
        lengths = [stored[str(number)].shape[0] for number in range(len(stored))]
        assert all(block.chunks is None and block.dtype == np.uint8 for block in stored.values())
    assert sum(lengths) == listing.nbytes.sum()
    expected, held = [], None
    for i, size in enumerate(listing.nbytes.tolist()):
        if held is None or held + size > limit:
            expected.append(i)
            held = 0
        held += size
    assert first == expected
    for offset, size, checksum in zip(listing.offset, listing.nbytes, listing.crc32, strict=True):
        assert zlib.crc32(content[offset : offset + size]) == checksum


def test_larger_images_are_shortened_and_smaller_ones_taken_as_they_are(listing_path, pack):
    folder, packed = (read_listing(path, "train") for path in (listing_path, pack(shorter_side=32, quality=90)))
    for i, content in enumerate(contents(packed)):
        original, found = folder.path(i).read_bytes(), decode(content)
        if folder.size[i].min() <= 32:
            assert content == original
            continue
        expected = V.resize(decode(original), [32], antialias=True)
        assert found.shape == expected.shape
        assert packed.size[i].tolist() == list(found.shape[1:])
        assert (found.float() - expected.float()).abs().mean() < 3
        assert Image.open(io.BytesIO(content)).format == "JPEG"
    assert packed.label.tolist() == folder.label.tolist()
    assert packed.source_digest == folder.source_digest


def test_the_digest_is_the_listings_as_long_as_no_byte_changes(listing_path, pack):
    digest = read_listing(listing_path, "train").digest
    found = {
        (side, quality): read_listing(pack(shorter_side=side, quality=quality), "train").digest
        for side in (None, 64, 32)
        for quality in (80, 95)
    }
    assert {found[side, quality] for side in (None, 64) for quality in (80, 95)} == {digest}
    assert len(set(found.values())) == 3


def test_a_pack_says_what_it_was_made_of_and_is_the_same_for_any_number_of_threads(listing_path, pack, small_blocks):
    one, four = pack("one.h5", threads=1, shorter_side=32), pack("four.h5", threads=4, shorter_side=32)
    assert one.read_bytes() == four.read_bytes()
    with h5py.File(one) as file:
        facts = json.loads(file.attrs["provenance"])
    assert facts["inputs"] == {"listing": read_listing(listing_path, "train").digest}
    assert facts["settings"]["pack"] == {"shorter_side": 32, "quality": 95}


def _first(change):
    def apply(group):
        values = change(group["first"][:])
        del group["first"]
        group["first"] = values

    return apply


def _shorter_block(group):
    content = group["block/0"][:-1]
    del group["block/0"]
    group["block/0"] = content


@pytest.mark.parametrize(
    "damage",
    [
        _first(lambda first: first[::-1]),
        _first(lambda first: first + 1),
        _first(lambda first: first.astype(float)),
        _first(lambda first: first[:-1]),
        _shorter_block,
        lambda group: group.pop("block/1"),
        lambda group: group.pop("first"),
    ],
)
def test_a_pack_whose_blocks_are_not_those_of_its_images_is_refused(damage, pack, small_blocks):
    path = pack()
    with h5py.File(path, "r+") as file:
        damage(file["train"])
    with pytest.raises(BingoError, match=rf"^{path}: "):
        read_listing(path, "train")


def test_a_damaged_pack_is_refused_with_pack_and_image(pack, small_blocks):
    path = pack()
    listing, content = read_listing(path, "train"), path.read_bytes()
    images = open_images(listing)
    for i in range(len(SIZES)):
        place = listing.offset[i] + listing.nbytes[i] // 2
        path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        with pytest.raises(BingoError, match=rf"^{path}/{os.fsdecode(listing.paths[i])}: "):
            list(open_images(read_listing(path, "train")).fetch(np.arange(len(SIZES))))
    for length in range(0, len(content), 4999):
        path.write_bytes(content[:length])
        assert refused(lambda path: read_listing(path, "train"), path) is not None
    path.unlink()
    with pytest.raises(BingoError, match=rf"^{path}/a/0\.jpg: "):
        list(images.fetch(np.array([0])))


def test_an_image_changed_after_listing_is_not_packed(listing_path, pack, tmp_path):
    path = read_listing(listing_path, "train").path(2)
    content = bytearray(path.read_bytes())
    content[-20] ^= 1  # it can still be decoded
    path.write_bytes(content)
    assert decode(bytes(content)).shape[1:] == SIZES[4]
    with pytest.raises(BingoError, match=rf"^{path}: "):
        pack()
    assert not (tmp_path / "train.h5").exists()


def test_only_folders_are_packed(list_images, pack, tmp_path):
    arrays = list_images(tmp_path / "demo.h5", source="demo", max_train=5)
    for listing in (arrays, pack()):
        with pytest.raises(BingoError):
            pack("again.h5", listing=listing)
    assert not (tmp_path / "again.h5").exists()
