import resource
import tracemalloc
from pathlib import Path

import h5py
import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from bingo.artifacts.hdf5 import write_hdf5
from bingo.bags.bags import Bags, read_bags, write_bags
from bingo.bags.groups import label_bags, random_bags
from bingo.bags.kmeans import kmeans_bags
from bingo.bags.knn import knn_bags
from tests.conftest import refused


def neighbour_bags(members):
    """Bags of neighbours: row i holds the members of image i's bag."""
    members = np.asarray(members)
    count, size = members.shape
    return Bags(np.arange(count), np.arange(0, count * size + 1, size), members.reshape(-1), includes_anchor=False)


CRITERIA = ("knn", "kmeans", "label", "random")


def make_bags(criterion, count, parameter, labels=None, copies=1, seed=0):
    """Bags as the criterion makes them: of ``parameter`` others or clusters, from features that may be repeated."""
    draw = np.random.default_rng(seed)
    features = np.repeat(draw.normal(size=(count, 3)).astype(np.float32), copies, axis=0)[:count]
    match criterion:
        case "knn":
            return knn_bags(features, parameter)
        case "kmeans":
            return kmeans_bags(features, parameter, 5, seed)
        case "label":
            return label_bags(draw.integers(0, parameter, size=count) if labels is None else labels)
        case "random":
            return random_bags(count, parameter, seed)


@st.composite
def settings_of_bags(draw):
    """Criterion, number of images, number of neighbours or clusters, labels, copies of each image, seed."""
    criterion, count = draw(st.sampled_from(CRITERIA)), draw(st.integers(2, 40))
    some = st.lists(st.integers(-1, draw(st.sampled_from([0, 1, 4]))), min_size=count, max_size=count)
    labels = np.array(draw(some.filter(lambda labels: max(labels) >= 0)))
    copies, seed = draw(st.sampled_from([1, 3, count])), draw(st.integers(0, 2**31 - 1))
    return criterion, count, draw(st.integers(1, count - 1)), labels, copies, seed


any_bags = settings_of_bags().map(lambda chosen: make_bags(*chosen))


@settings(deadline=None, max_examples=100)
@given(chosen=settings_of_bags())
def test_bags_of_every_criterion_are_consistent(chosen):
    criterion, count, parameter, labels, _, _ = chosen
    bags = make_bags(*chosen)
    sizes = np.diff(bags.indptr)
    assert bags.bag_of.dtype == bags.indptr.dtype == bags.members.dtype == np.int64
    assert bags.bag_of.shape == (count,)
    assert set(bags.bag_of) == set(range(len(sizes)))  # no bag without an image that points at it
    assert bags.indptr[0] == 0
    assert bags.indptr[-1] == len(bags.members)
    assert (sizes > 0).all()
    assert set(bags.members) <= set(range(count))
    rows = [bags.members[low:high] for low, high in zip(bags.indptr[:-1], bags.indptr[1:], strict=True)]
    assert all(len(set(row)) == len(row) for row in rows)
    assert bags.includes_anchor is (criterion != "knn")
    if criterion == "knn":
        np.testing.assert_array_equal(bags.bag_of, np.arange(count))
        assert (sizes == parameter).all()
        assert all(image not in rows[image] for image in range(count))
        return
    np.testing.assert_array_equal(np.sort(bags.members), np.arange(count))
    assert all(image in rows[bags.bag_of[image]] for image in range(count))
    if criterion == "kmeans":
        assert len(sizes) <= parameter
    if criterion == "random":
        assert sizes.min() >= parameter + 1
    if criterion == "label":
        for image in range(count):
            expected = np.flatnonzero(labels == labels[image]) if labels[image] >= 0 else [image]
            np.testing.assert_array_equal(rows[bags.bag_of[image]], expected)


def others(bags, anchor):
    bag = bags.bag_of[anchor]
    return [int(m) for m in bags.members[bags.indptr[bag] : bags.indptr[bag + 1]] if m != anchor]


@settings(deadline=None, max_examples=100)
@given(bags=any_bags, seed=st.integers(0, 2**32 - 1), epoch=st.integers(0, 500))
def test_a_positive_is_another_member_of_the_bag_or_the_anchor_where_there_is_nobody_else(bags, seed, epoch):
    anchors = np.arange(len(bags.bag_of))
    for anchor, drawn in zip(anchors, bags.draw(anchors, seed, epoch), strict=True):
        assert drawn in (others(bags, anchor) or [anchor])


@settings(deadline=None, max_examples=100)
@given(bags=any_bags, seed=st.integers(0, 2**32 - 1), epoch=st.integers(0, 500), data=st.data())
def test_a_draw_depends_on_seed_anchor_and_epoch_and_not_on_the_batch(bags, seed, epoch, data):
    count = len(bags.bag_of)
    batch = np.array(data.draw(st.lists(st.integers(0, count - 1), min_size=1, max_size=20)))
    whole = bags.draw(np.arange(count), seed, epoch)
    np.testing.assert_array_equal(bags.draw(batch, seed, epoch), whole[batch])


# Anchors stand first, last and amid their groups; the last image has no company.
GROUPS = np.array([0, 1, 0, 0, 1, 0, 1, 0, 0, 2, 2, -1])


@pytest.mark.parametrize("criterion", CRITERIA)
def test_every_other_member_is_drawn_equally_often(criterion):
    bags = make_bags(criterion, 12, 3, labels=GROUPS)
    anchors, epochs = np.arange(12), 1500
    drawn = np.array([bags.draw(anchors, 0, epoch) for epoch in range(epochs)])
    sizes = set()
    for anchor in anchors:
        company = others(bags, anchor)
        sizes.add(len(company))
        counts = [(drawn[:, anchor] == member).sum() for member in company or [anchor]]
        assert sum(counts) == epochs
        assert len(counts) == 1 or scipy.stats.chisquare(counts).pvalue > 1e-3 / len(anchors)
    assert max(sizes) > 1


def naive_purity(bags, labels):
    shares = []
    for image in range(len(labels)):
        company = [labels[m] for m in others(bags, image) if labels[m] >= 0]
        if labels[image] >= 0 and company:
            shares.append(sum(label == labels[image] for label in company) / len(company))
    return sum(shares) / len(shares) if shares else None


@settings(deadline=None, max_examples=100)
@given(bags=any_bags, data=st.data())
def test_purity_is_that_of_a_naive_loop(bags, data):
    count = len(bags.bag_of)
    labels = np.array(data.draw(st.lists(st.integers(-1, 2), min_size=count, max_size=count)))
    assert bags.purity(labels) == pytest.approx(naive_purity(bags, labels))


@pytest.mark.parametrize(("steps", "expected"), [([2, 4], 1.0), ([1, 3], 0.0), ([1, 2, 3], 1 / 3)])
def test_purity_of_many_images_is_that_of_few(steps, expected):
    image = np.arange(70_000)
    bags = neighbour_bags(np.stack([(image + step) % len(image) for step in steps], axis=1))
    assert bags.purity(image % 2) == pytest.approx(expected)


@pytest.fixture
def memory_of():
    """Return a function that calls another one and returns its result and peak memory in bytes, 1 GiB at most."""
    with Path("/proc/self/statm").open() as file:
        taken = int(file.read().split()[0]) * resource.getpagesize()
    limits = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (taken + 2**30, limits[1]))

    def memory_of(function):
        tracemalloc.start()
        try:
            return function(), tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    yield memory_of
    resource.setrlimit(resource.RLIMIT_AS, limits)


@pytest.mark.parametrize("criterion", ["kmeans", "label"])
def test_two_huge_groups_need_no_more_memory_than_the_images(criterion, memory_of):
    count = 200_000
    labels = np.arange(count) % 2
    features = np.eye(4, dtype=np.float32)[labels]
    make = {"kmeans": lambda: kmeans_bags(features, 2, 5, 0), "label": lambda: label_bags(labels)}[criterion]
    bags, to_make = memory_of(make)
    drawn, to_draw = memory_of(lambda: bags.draw(np.arange(count), 0, 0))
    purity, to_measure = memory_of(lambda: bags.purity(labels))
    np.testing.assert_array_equal(np.diff(bags.indptr), [count // 2, count // 2])
    assert (labels[drawn] == labels).all()
    assert purity == 1.0
    assert max(to_make, to_draw, to_measure) < 300 * count  # a bag alone has 800,000 bytes


def assert_equal_bags(found, expected):
    for name in ("bag_of", "indptr", "members", "similarity"):
        array = getattr(expected, name)
        if array is None:
            assert getattr(found, name) is None
        else:
            np.testing.assert_array_equal(getattr(found, name), array)
            assert getattr(found, name).dtype == array.dtype
    assert found.includes_anchor is expected.includes_anchor


@pytest.fixture
def bags():
    made = make_bags("knn", 60, 7)
    made.attributes.update(dataset_digest="d" * 64, provenance={"stage": "bags", "settings": {"size": 2}}, purity=0.25)
    return made


@pytest.mark.parametrize("criterion", CRITERIA)
def test_written_bags_are_read_back_whole(criterion, tmp_path):
    bags = make_bags(criterion, 60, 7)
    bags.attributes.update(dataset_digest="d" * 64, provenance={"stage": "bags", "settings": {"size": 2}}, bags=7)
    write_bags(tmp_path / "bags.h5", bags)
    found = read_bags(tmp_path / "bags.h5")
    assert_equal_bags(found, bags)
    assert found.attributes.items() >= bags.attributes.items()
    with h5py.File(tmp_path / "bags.h5") as file:
        dtypes = {name: file[name].dtype for name in file}
        assert all(file[name].fletcher32 for name in file)
    integers = dict.fromkeys(("bag_of", "indptr", "members"), np.int64)
    assert dtypes == integers | ({} if bags.similarity is None else {"similarity": np.float32})


def change_a_member(path):
    with h5py.File(path, "r+") as file:  # a change that keeps all checksums right
        file["members"][0] = 59


def store_something_else(path):
    with h5py.File(path, "w") as file:
        file["data"] = [1, 2]


def store_embeddings(path):
    path.unlink()
    with write_hdf5(path, {"kind": "embeddings"}):
        pass


@pytest.mark.parametrize(
    "change",
    [
        change_a_member,
        store_something_else,
        store_embeddings,
        Path.unlink,
        lambda path: path.write_text("no HDF5"),
        lambda path: path.write_bytes(path.read_bytes()[:-100]),
        lambda path: path.write_bytes(path.read_bytes().replace(b'{"settings"', b'{"settings[')),
    ],
    ids=["a member", "a foreign file", "embeddings", "missing", "text", "truncated", "provenance"],
)
def test_bags_that_are_not_as_they_were_written_are_refused(change, bags, tmp_path):
    write_bags(tmp_path / "bags.h5", bags)
    change(tmp_path / "bags.h5")
    assert refused(read_bags, tmp_path / "bags.h5") is not None
