import h5py
import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from bingo.artifacts import write_hdf5
from bingo.bags.bags import Bags, read_bags, write_bags
from bingo.errors import BingoError


def group_bags(group_of):
    """Bags of groups: every image is a member of its own bag."""
    group_of = np.asarray(group_of)
    groups = np.unique(group_of)
    members = [np.flatnonzero(group_of == group) for group in groups]
    return Bags(
        bag_of=np.searchsorted(groups, group_of),
        indptr=np.cumsum([0, *map(len, members)]),
        members=np.concatenate(members),
        includes_anchor=True,
    )


def neighbour_bags(members):
    """Bags of neighbours: row i holds the members of image i's bag."""
    members = np.asarray(members)
    count, size = members.shape
    return Bags(np.arange(count), np.arange(0, count * size + 1, size), members.reshape(-1), includes_anchor=False)


@st.composite
def any_bags(draw):
    count = draw(st.integers(2, 12))
    if draw(st.booleans()):
        return group_bags(draw(st.lists(st.integers(0, 4), min_size=count, max_size=count)))
    size = draw(st.integers(1, count - 1))
    order = np.random.default_rng(draw(st.integers(0, 99)))
    return neighbour_bags([order.permutation(np.delete(np.arange(count), i))[:size] for i in range(count)])


def others(bags, anchor):
    bag = bags.bag_of[anchor]
    return [int(m) for m in bags.members[bags.indptr[bag] : bags.indptr[bag + 1]] if m != anchor]


@settings(deadline=None, max_examples=80)
@given(bags=any_bags(), seed=st.integers(0, 2**32 - 1), epoch=st.integers(0, 500))
def test_a_positive_is_another_member_of_the_bag_or_the_anchor_where_there_is_nobody_else(bags, seed, epoch):
    anchors = np.arange(len(bags.bag_of))
    for anchor, drawn in zip(anchors, bags.draw(anchors, seed, epoch), strict=True):
        assert drawn in (others(bags, anchor) or [anchor])


@settings(deadline=None, max_examples=40)
@given(bags=any_bags(), seed=st.integers(0, 2**32 - 1), epoch=st.integers(0, 500), data=st.data())
def test_a_draw_depends_on_seed_anchor_and_epoch_and_not_on_the_batch(bags, seed, epoch, data):
    count = len(bags.bag_of)
    batch = np.array(data.draw(st.lists(st.integers(0, count - 1), min_size=1, max_size=20)))
    whole = bags.draw(np.arange(count), seed, epoch)
    np.testing.assert_array_equal(bags.draw(batch, seed, epoch), whole[batch])


def test_draws_differ_between_epochs_and_between_seeds():
    bags = group_bags([0] * 50)
    anchors = np.arange(50)
    first = bags.draw(anchors, 0, 0)
    for seed, epoch in ((0, 1), (1, 0)):
        assert (bags.draw(anchors, seed, epoch) != first).mean() > 0.8


@pytest.mark.parametrize(
    "bags",
    [
        group_bags([0, 1, 0, 0, 1, 0, 1, 0, 0]),  # anchors first, last and amid their bags
        neighbour_bags([np.delete(np.arange(7), i)[:5] for i in range(7)]),
    ],
    ids=["groups", "neighbours"],
)
def test_every_other_member_is_drawn_equally_often(bags):
    anchors = np.arange(len(bags.bag_of))
    drawn = np.array([bags.draw(anchors, 5, epoch) for epoch in range(1500)])
    for anchor in anchors:
        expected = others(bags, anchor)
        counts = [(drawn[:, anchor] == member).sum() for member in expected]
        assert sum(counts) == len(drawn)
        assert scipy.stats.chisquare(counts).pvalue > 1e-3


def naive_purity(bags, labels):
    shares = []
    for image in range(len(labels)):
        company = [labels[m] for m in others(bags, image) if labels[m] >= 0]
        if labels[image] >= 0 and company:
            shares.append(sum(label == labels[image] for label in company) / len(company))
    return sum(shares) / len(shares) if shares else None


@settings(deadline=None, max_examples=80)
@given(bags=any_bags(), data=st.data())
def test_purity_is_that_of_a_naive_loop(bags, data):
    count = len(bags.bag_of)
    labels = np.array(data.draw(st.lists(st.integers(-1, 2), min_size=count, max_size=count)))
    assert bags.purity(labels) == pytest.approx(naive_purity(bags, labels))


@pytest.mark.parametrize(("steps", "expected"), [([2, 4], 1.0), ([1, 3], 0.0), ([1, 2, 3], 1 / 3)])
def test_purity_of_many_images_is_that_of_few(steps, expected):
    image = np.arange(70_000)  # more than are looked at in one go
    bags = neighbour_bags(np.stack([(image + step) % len(image) for step in steps], axis=1))
    assert bags.purity(image % 2) == pytest.approx(expected)


def test_purity_without_labels_is_unknown():
    assert group_bags([0, 0, 1, 1]).purity(np.full(4, -1)) is None


@pytest.fixture(params=["knn", "groups"])
def bags(request):
    attributes = {"dataset_digest": "d" * 64, "provenance": {"stage": "bags", "settings": {"size": 2}}, "purity": 0.25}
    if request.param == "groups":
        plain = group_bags(np.arange(60) % 7)
        return Bags(plain.bag_of, plain.indptr, plain.members, True, None, attributes)
    plain = neighbour_bags([[(i + 1) % 60, (i + 7) % 60] for i in range(60)])
    similarity = np.linspace(1, -1, 120, dtype=np.float32)
    return Bags(plain.bag_of, plain.indptr, plain.members, False, similarity, attributes)


def assert_equal_bags(found, expected):
    for name in ("bag_of", "indptr", "members", "similarity"):
        array = getattr(expected, name)
        if array is None:
            assert getattr(found, name) is None
        else:
            np.testing.assert_array_equal(getattr(found, name), array)
            assert getattr(found, name).dtype == array.dtype
    assert found.includes_anchor is expected.includes_anchor


def test_written_bags_are_read_back_whole(bags, tmp_path):
    write_bags(tmp_path / "bags.h5", bags)
    found = read_bags(tmp_path / "bags.h5")
    assert_equal_bags(found, bags)
    assert found.attributes.items() >= bags.attributes.items()
    with h5py.File(tmp_path / "bags.h5") as file:
        dtypes = {name: file[name].dtype for name in file}
        assert all(file[name].fletcher32 for name in file)
    integers = dict.fromkeys(("bag_of", "indptr", "members"), np.int64)
    assert dtypes == integers | ({} if bags.similarity is None else {"similarity": np.float32})


def test_equal_bags_give_equal_bytes(bags, tmp_path):
    for name in ("first", "second"):
        write_bags(tmp_path / name, bags)
    assert (tmp_path / "first").read_bytes() == (tmp_path / "second").read_bytes()


def refusal(path):
    with pytest.raises(BingoError) as caught:
        read_bags(path)
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    return message


def test_no_flipped_byte_changes_bags_in_silence(bags, tmp_path):
    path = tmp_path / "bags.h5"
    write_bags(path, bags)
    content = path.read_bytes()
    heap = content.index(b"GCOL")  # HDF5's heap of strings, the one part of a file without checksums
    refused = 0
    for position in [*range(0, heap, 7), *range(heap + 4096, len(content), 31)]:
        damaged = bytearray(content)
        damaged[position] ^= 0x15
        path.write_bytes(damaged)
        try:
            assert_equal_bags(read_bags(path), bags)  # the byte was no part of what is read
        except BingoError as error:
            assert str(path) in str(error)  # noqa: PT017
            refused += 1
    assert refused > 20


def test_each_flipped_member_is_refused(bags, tmp_path):
    path = tmp_path / "bags.h5"
    write_bags(path, bags)
    content = path.read_bytes()
    with h5py.File(path) as file:
        starts = [file[name].id.get_chunk_info(0).byte_offset for name in file]
    for start in starts:
        damaged = bytearray(content)
        damaged[start + 9] ^= 1
        path.write_bytes(damaged)
        assert "damaged" in refusal(path)


def test_damaged_provenance_is_refused(bags, tmp_path):
    path = tmp_path / "bags.h5"
    write_bags(path, bags)
    content = path.read_bytes()
    path.write_bytes(content.replace(b'{"settings"', b'{"settings['))
    assert "provenance" in refusal(path)


def test_arrays_that_do_not_match_their_digest_are_refused(bags, tmp_path):
    path = tmp_path / "bags.h5"
    write_bags(path, bags)
    with h5py.File(path, "r+") as file:  # a change that keeps all checksums right
        file["members"][0] = 59
    assert "do not match their digest" in refusal(path)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9, 0.999])
def test_truncated_bags_are_refused(share, bags, tmp_path):
    path = tmp_path / "bags.h5"
    write_bags(path, bags)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    refusal(path)


def test_other_files_are_refused(tmp_path):
    assert "no such file" in refusal(tmp_path / "absent.h5")
    with write_hdf5(tmp_path / "embeddings.h5", {"kind": "embeddings"}):
        pass
    assert "holds embeddings, but bags" in refusal(tmp_path / "embeddings.h5")
    with h5py.File(tmp_path / "foreign.h5", "w") as file:
        file["data"] = [1, 2]
    assert "something unknown" in refusal(tmp_path / "foreign.h5")
    (tmp_path / "text.h5").write_text("no HDF5")
    refusal(tmp_path / "text.h5")
