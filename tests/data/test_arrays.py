import gzip
import pickle
import urllib.error
import urllib.request
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torchvision

from bingo.data import arrays
from bingo.data.arrays import DEMO, class_names, load_arrays, load_idx
from bingo.errors import BingoError

ORIGINAL = Path("/usr/share/datasets/fashion-mnist")
IMAGES = np.random.default_rng(0).integers(0, 256, (3, 5, 4), dtype=np.uint8)
LABELS = np.array([7, 0, 9], dtype=np.uint8)


def idx(values):
    """MNIST's format: two zeros, type 8 (bytes), dimensions, big-endian shape, data."""
    shape = b"".join(side.to_bytes(4, "big") for side in values.shape)
    return b"\0\0\x08" + bytes([values.ndim]) + shape + values.tobytes()


def write_idx(folder, name="train", images=IMAGES, labels=LABELS):
    (folder / f"{name}-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(images)))
    (folder / f"{name}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(labels)))


@pytest.fixture(scope="module")
def demo():
    return {split: load_arrays("demo", Path(), split) for split in ("train", "val")}


@pytest.fixture
def no_network(monkeypatch):
    def refuse(*args, **options):
        raise urllib.error.URLError("no network")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)


@pytest.fixture
def any_checksum(monkeypatch):
    """Let torchvision take small stand-ins for the sets' files."""
    for name in ("CIFAR10", "CIFAR100", "STL10"):
        dataset = getattr(torchvision.datasets, name)
        for attribute in ("train_list", "test_list"):
            files = [[file, None] for file, _ in getattr(dataset, attribute)]
            monkeypatch.setattr(dataset, attribute, files)
        if name != "STL10":
            monkeypatch.setattr(dataset, "meta", {**dataset.meta, "md5": None})


@pytest.mark.parametrize(("split", "count"), [("train", 10_000), ("val", 5_000)])
def test_the_demo_holds_its_images_and_ten_classes(demo, split, count):
    images, labels = demo[split]
    assert (images.shape, images.dtype) == ((count, 28, 28, 1), np.uint8)
    assert (labels.shape, labels.dtype) == ((count,), np.int64)
    # Each class has its tenth, give or take five standard deviations of chance.
    assert abs(np.bincount(labels, minlength=10) - count / 10).max() < 5 * np.sqrt(count * 0.09)


@pytest.mark.skipif(not ORIGINAL.is_dir(), reason="Debian's dataset-fashion-mnist is not installed")
@pytest.mark.parametrize("split", ["train", "val"])
def test_the_demo_is_the_beginning_of_the_original_files(demo, split):
    images, labels = load_arrays("fashion-mnist", ORIGINAL, split)
    assert np.array_equal(demo[split][0], images[: len(demo[split][0])])
    assert np.array_equal(demo[split][1], labels[: len(demo[split][1])])


def test_a_damaged_demo_file_is_refused_by_name(tmp_path, monkeypatch):
    content = bytearray(DEMO.read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / "demo.h5").write_bytes(content)
    monkeypatch.setattr(arrays, "DEMO", tmp_path / "demo.h5")
    with pytest.raises(BingoError, match=rf"^{tmp_path / 'demo.h5'}: "):
        load_arrays("demo", Path(), "train")


@pytest.mark.parametrize(("split", "name"), [("train", "train"), ("val", "t10k")])
def test_idx_files_are_read_as_written(tmp_path, split, name):
    write_idx(tmp_path, name)
    for images, labels in (load_idx(tmp_path, split), load_arrays("fashion-mnist", tmp_path, split)):
        assert (images.shape, images.dtype, labels.dtype) == ((3, 5, 4, 1), np.uint8, np.int64)
        assert np.array_equal(images[..., 0], IMAGES)
        assert labels.tolist() == [7, 0, 9]


@pytest.mark.parametrize(
    ("source", "folder", "train", "val", "meta", "key", "names"),
    [
        ("cifar10", "cifar-10-batches-py", 5, "test_batch", "batches.meta", "labels", "label_names"),
        ("cifar100", "cifar-100-python", 1, "test", "meta", "fine_labels", "fine_label_names"),
    ],
)
def test_cifar_is_read_where_it_lies(tmp_path, no_network, any_checksum, source, folder, train, val, meta, key, names):
    def pickled(name, content):
        (tmp_path / folder).mkdir(exist_ok=True)
        (tmp_path / folder / name).write_bytes(pickle.dumps(content))

    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (train + 1, 2, 3, 32, 32), dtype=np.uint8)
    labels = rng.integers(0, 10, (train + 1, 2))
    files = ["train"] if train == 1 else [f"data_batch_{i + 1}" for i in range(train)]
    for name, data, label in zip([*files, val], images, labels, strict=True):
        pickled(name, {"data": data.reshape(2, -1), key: label.tolist()})
    pickled(meta, {names: [str(c) for c in range(10)]})

    for split, rows in (("train", slice(0, train)), ("val", slice(train, None))):
        found, found_labels = load_arrays(source, tmp_path, split)
        assert np.array_equal(found, images[rows].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))
        assert found_labels.dtype == np.int64
        assert np.array_equal(found_labels, labels[rows].ravel())


def test_stl10_is_read_where_it_lies_with_its_unlabelled_images(tmp_path, no_network, any_checksum):
    folder = tmp_path / "stl10_binary"
    folder.mkdir()
    images = np.random.default_rng(0).integers(0, 256, (6, 96, 96, 3), dtype=np.uint8)

    def write(name, rows):
        # Its files hold channels, then columns, then rows, and count classes from one.
        (folder / name).write_bytes(images[rows].transpose(0, 3, 2, 1).tobytes())

    write("train_X.bin", slice(0, 2))
    write("unlabeled_X.bin", slice(2, 5))
    write("test_X.bin", slice(5, 6))
    (folder / "train_y.bin").write_bytes(bytes([1, 10]))
    (folder / "test_y.bin").write_bytes(bytes([4]))

    for split, rows, expected in (("train", slice(0, 5), [0, 9, -1, -1, -1]), ("val", slice(5, 6), [3])):
        found, labels = load_arrays("stl10", tmp_path, split)
        assert np.array_equal(found, images[rows])
        assert (labels.tolist(), labels.dtype) == (expected, np.int64)


def test_fashion_mnist_is_read_where_torchvision_unpacked_it(tmp_path, no_network):
    raw = tmp_path / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    for name in ("train", "t10k"):
        (raw / f"{name}-images-idx3-ubyte").write_bytes(idx(IMAGES))
        (raw / f"{name}-labels-idx1-ubyte").write_bytes(idx(LABELS))
    images, labels = load_arrays("fashion-mnist", tmp_path, "val")
    assert np.array_equal(images, IMAGES[..., None])
    assert labels.tolist() == [7, 0, 9]


@pytest.mark.parametrize(
    ("source", "label", "name"),
    [
        ("demo", 9, "Ankle boot"),
        ("fashion-mnist", 0, "T-shirt/top"),
        ("cifar10", 6, "frog"),
        ("cifar100", 99, "99"),
        ("stl10", 7, "monkey"),
    ],
)
def test_every_class_of_a_set_has_a_name_of_its_own(source, label, name):
    count = 100 if source == "cifar100" else 10
    names = class_names(source, count)
    assert len(set(names)) == len(names) == count
    assert names[label] == name


@pytest.mark.parametrize("kind", ["images-idx3", "labels-idx1"])
def test_a_damaged_idx_file_is_refused_or_reads_the_same(tmp_path, kind):
    write_idx(tmp_path)
    path = tmp_path / f"train-{kind}-ubyte.gz"
    content = path.read_bytes()
    for i in range(len(content)):
        path.write_bytes(content[:i])
        with pytest.raises(BingoError, match=str(tmp_path)):
            load_idx(tmp_path, "train")
        path.write_bytes(content[:i] + bytes([content[i] ^ 1 << i % 8]) + content[i + 1 :])
        with suppress(BingoError):
            images, labels = load_idx(tmp_path, "train")
            assert np.array_equal(images[..., 0], IMAGES)
            assert np.array_equal(labels, LABELS)


@pytest.mark.parametrize(
    "change",
    [
        lambda folder: write_idx(folder, images=IMAGES[:2]),
        lambda folder: write_idx(folder, labels=LABELS[:2]),
        lambda folder: (folder / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(IMAGES)[:-1])),
        lambda folder: (folder / "train-labels-idx1-ubyte.gz").unlink(),
    ],
    ids=["fewer images", "fewer labels", "fewer bytes", "no labels"],
)
def test_idx_files_that_do_not_fit_each_other_are_refused(tmp_path, change):
    write_idx(tmp_path)
    change(tmp_path)
    with pytest.raises(BingoError, match=str(tmp_path)):
        load_arrays("fashion-mnist", tmp_path, "train")


@pytest.mark.parametrize("source", ["fashion-mnist", "cifar10", "cifar100", "stl10"])
@pytest.mark.parametrize("root", ["absent", "file"])
def test_a_set_that_is_neither_there_nor_can_be_downloaded_is_refused_by_key(tmp_path, no_network, source, root):
    (tmp_path / "file").write_text("x")
    with pytest.raises(BingoError, match=rf"^data\.root: {source} .*{tmp_path / root}"):
        load_arrays(source, tmp_path / root, "train")
