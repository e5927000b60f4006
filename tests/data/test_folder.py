import os
import tracemalloc
from pathlib import Path

import numpy as np
import psutil
import pytest

from bingo.artifacts.hdf5 import write_hdf5
from bingo.data.folder import is_image, walk
from bingo.data.listing import Listing, read_listing, store
from bingo.training.loader import load

IMAGENET, PER_CLASS = 1_300_000, 1300
MIB = 2**20


@pytest.fixture(scope="module")
def million(tmp_path_factory):
    """Write a listing of ImageNet's size; return its path and the listing."""
    number = np.arange(IMAGENET)
    label = number // PER_CLASS
    names = [f"n{1440764 + i:08d}/n{1440764 + i:08d}_".encode() for i in range(IMAGENET // PER_CLASS)]
    digits = np.char.zfill((number % PER_CLASS).astype("S5"), 5)
    paths = np.char.add(np.char.add(np.array(names)[label], digits), b".JPEG")
    draw = np.random.default_rng(0)
    listing = Listing(
        source="folder",
        root=Path("/images"),
        split="train",
        label=label,
        size=draw.integers(1, 5000, (IMAGENET, 2)),
        classes=[name.decode()[:9] for name in names],
        source_digest="0",
        digest="0",
        paths=paths,
        nbytes=draw.integers(1, 10**6, IMAGENET),
        crc32=draw.integers(0, 2**32, IMAGENET, dtype=np.uint32),
    )
    path = tmp_path_factory.mktemp("million") / "listing.h5"
    with write_hdf5(path, {"kind": "listing", "source": "folder"}) as file:
        store(file.create_group("train"), listing)
    return path, listing


@pytest.mark.slow
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
    assert listing.path(IMAGENET - 1) == Path("/images/n01441763/n01441763_01299.JPEG")


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


@pytest.mark.slow
def test_workers_that_use_a_million_rows_share_the_listing(million):
    listing = read_listing(million[0], "train")
    grown: dict[int, int] = {}
    for pid, growth in load(UsesEveryRow(listing), range(IMAGENET // 50_000), workers=2):
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
