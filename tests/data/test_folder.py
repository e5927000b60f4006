"""Data of ImageNet's size, and many workers that read at once."""

import os
import tracemalloc
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from PIL import Image

from bingo.artifacts.hdf5 import write_hdf5
from bingo.data.decode import decode
from bingo.data.folder import is_image, walk
from bingo.data.images import open_images
from bingo.data.listing import Listing, read_listing, store
from bingo.study.images import Pack
from bingo.study.jobs import PackJob
from bingo.training.loader import load
from tests.stage import run_stage

MILLIONS, PER_CLASS = 1_300_000, 1300
FILES = 5000
MIB = 2**20


@pytest.fixture(scope="module")
def million(tmp_path_factory):
    """Write a listing as ImageNet's would be: path and listing."""
    number = np.arange(MILLIONS)
    label = number // PER_CLASS
    names = [f"n{1440764 + i:08d}/n{1440764 + i:08d}_".encode() for i in range(MILLIONS // PER_CLASS)]
    digits = np.char.zfill((number % PER_CLASS).astype("S5"), 5)
    paths = np.char.add(np.char.add(np.array(names)[label], digits), b".JPEG")
    draw = np.random.default_rng(0)
    listing = Listing(
        source="folder",
        root=Path("/images"),
        split="train",
        label=label,
        size=draw.integers(1, 5000, (MILLIONS, 2)),
        classes=[name.decode()[:9] for name in names],
        source_digest="0",
        digest="0",
        paths=paths,
        nbytes=draw.integers(1, 10**6, MILLIONS),
        crc32=draw.integers(0, 2**32, MILLIONS, dtype=np.uint32),
    )
    path = tmp_path_factory.mktemp("million") / "listing.h5"
    with write_hdf5(path, {"kind": "listing", "source": "folder"}) as file:
        store(file.create_group("train"), listing)
    return path, listing


def test_a_listing_of_a_million_files_is_read_whole_and_in_the_memory_of_its_columns(million):
    path, written = million
    tracemalloc.start()
    listing = read_listing(path, "train")
    held, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    columns = ["label", "size", "paths", "nbytes", "crc32"]
    for name in columns:
        assert np.array_equal(getattr(listing, name), getattr(written, name)), name
    total = sum(getattr(listing, name).nbytes for name in columns)
    assert held < total + 2 * MIB
    assert peak < total + 64 * MIB
    assert listing.path(MILLIONS - 1) == Path("/images/n01441763/n01441763_01299.JPEG")


class UsesEveryRow:
    """Asks for what a loader worker needs of some image on every page of memory, portion after portion."""

    def __init__(self, listing):
        self.listing = listing
        self.before: dict[int, int] = {}

    def __getitem__(self, portion):
        listing, pid = self.listing, os.getpid()
        self.before.setdefault(pid, psutil.Process().memory_full_info().uss)
        for i in range(portion * 50_000, (portion + 1) * 50_000, 8):
            assert listing.paths[i].endswith(b".JPEG")
            assert listing.size[i].tolist()[0] > 0
            assert listing.nbytes[i] + int(listing.crc32[i]) > 0
        return pid, psutil.Process().memory_full_info().uss - self.before[pid]


def test_workers_that_use_a_million_rows_share_the_listing(million):
    listing = read_listing(million[0], "train")
    grown: dict[int, int] = {}
    for pid, growth in load(UsesEveryRow(listing), range(MILLIONS // 50_000), workers=2):
        grown[pid] = max(growth, grown.get(pid, 0))
    assert len(grown) == 2
    # Half of an array of Python strings would be some 60 MiB of pages written to.
    assert max(grown.values()) < 16 * MIB


def test_a_walk_keeps_the_order_of_paths_parts(tmp_path):
    names = [
        "a/1.png",
        "a b/0.png",
        "a-b/x/0.png",
        "a.png",
        "a/b.png",
        "a/b/c.png",
        "a/b c.png",
        "é/0.png",
        "z.png",
        "B.PNG",
    ]
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / os.fsdecode(b"a/latin-\xe9.png")).touch()
    found = list(walk(tmp_path))
    assert found == [str(path.relative_to(tmp_path)) for path in sorted(p for p in tmp_path.rglob("*") if p.is_file())]
    assert all(is_image(name) for name in found)
    assert not any(map(is_image, ["a/.png", ".x.png", "a/.x.jpg", "png", "a.png/b", "a.png.txt"]))


class Pixels:
    """Decoded images of a pack, in batches."""

    def __init__(self, images):
        self.images = images

    def __getitem__(self, batch):
        rows = np.arange(batch * 100, (batch + 1) * 100)
        return [(os.getpid(), picture.whole()) for picture in self.images.fetch(rows)]


def test_thousands_of_packed_jpegs_read_by_two_workers_are_those_of_their_files(tmp_path, list_images):
    draw = np.random.default_rng(0)
    for number in range(FILES):
        path = tmp_path / "train" / str(number % 50) / f"{number:05d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        coarse = draw.integers(0, 256, (3, 4, 3), dtype=np.uint8)
        size = (16 + number % 7, 12 + number % 5)
        Image.fromarray(coarse).resize(size).save(path, quality=80)
    listing_path, pack_path = list_images(train=tmp_path / "train"), tmp_path / "train.h5"
    run_stage(PackJob, 2, split="train", pack=Pack(), listing=listing_path, output=pack_path)
    folder, pack = read_listing(listing_path, "train"), read_listing(pack_path, "train")
    assert len(pack) == FILES
    readers, row = set(), 0
    for batch in load(Pixels(open_images(pack)), range(FILES // 100), workers=2):
        for reader, pixels in batch:
            assert torch.equal(pixels, decode(folder.path(row).read_bytes()))
            readers.add(reader)
            row += 1
    assert row == FILES
    assert len(readers - {os.getpid()}) == 2
