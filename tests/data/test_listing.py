import errno
import json
import logging
import os
import shutil
import zlib

import h5py
import numpy as np
import pytest

from bingo.data.arrays import load_arrays
from bingo.data.images import open_images
from bingo.data.listing import read_listing
from bingo.errors import BingoError
from tests.conftest import refused

FASHION = ["T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"]


@pytest.fixture
def two_classes(tmp_path, save_image):
    """Two images of ants, three of bees, each of another size."""
    train = tmp_path / "train"
    for number, name in enumerate(["ant/0.png", "ant/1.png", "bee/0.png", "bee/1.png", "bee/2.png"]):
        save_image(train / name, number, (20 + number, 16))
    return train


def digest(list_images, train, **data):
    return read_listing(list_images(train=train, **data), "train").digest


def names_of(listing):
    return [os.fsdecode(path) for path in listing.paths]


def facts(path):
    with h5py.File(path) as file:
        return json.loads(file.attrs["provenance"])


def test_class_folders_are_listed_by_name_with_labels_and_sizes(two_classes, list_images):
    listing = read_listing(list_images(train=two_classes), "train")
    assert names_of(listing) == ["ant/0.png", "ant/1.png", "bee/0.png", "bee/1.png", "bee/2.png"]
    assert listing.classes == ["ant", "bee"]
    assert listing.label.tolist() == [0, 0, 1, 1, 1]
    assert listing.size.tolist() == [[20, 16], [21, 16], [22, 16], [23, 16], [24, 16]]
    assert listing.nbytes.tolist() == [listing.path(i).stat().st_size for i in range(5)]
    assert (listing.source, listing.root, listing.split) == ("folder", two_classes, "train")
    assert listing.crc32.tolist() == [zlib.crc32(listing.path(i).read_bytes()) for i in range(5)]
    assert listing.labelled
    assert listing.digest == listing.source_digest


def test_a_flat_folder_is_listed_without_labels(tmp_path, save_image, list_images):
    for number in range(3):
        save_image(tmp_path / "flat" / f"{number}.jpg", number)
    listing = read_listing(list_images(train=tmp_path / "flat"), "train")
    assert names_of(listing) == ["0.jpg", "1.jpg", "2.jpg"]
    assert listing.label.tolist() == [-1, -1, -1]
    assert listing.classes == []
    assert not listing.labelled


def test_nested_folders_belong_to_the_class_of_the_first_level(tmp_path, save_image, list_images):
    names = ["a/x/deep/0.png", "a/y.png", "b/0/1.png"]
    for number, name in enumerate(names):
        save_image(tmp_path / "train" / name, number)
    listing = read_listing(list_images(train=tmp_path / "train"), "train")
    assert dict(zip(names_of(listing), listing.label.tolist(), strict=True)) == dict(zip(names, [0, 0, 1], strict=True))


def test_other_files_and_hidden_ones_are_left_alone(two_classes, save_image, list_images):
    (two_classes / "bee" / "notes.txt").write_text("x")
    (two_classes / "Thumbs.db").write_bytes(b"x")
    (two_classes / "bee" / "._0.png").write_bytes(b"what another system keeps beside a file")
    save_image(two_classes / ".trash" / "0.png", 8)
    save_image(two_classes / "bee" / ".thumbnails" / "0.png", 9)
    listing = read_listing(list_images(train=two_classes), "train")
    assert names_of(listing) == ["ant/0.png", "ant/1.png", "bee/0.png", "bee/1.png", "bee/2.png"]
    assert listing.classes == ["ant", "bee"]


def test_suffixes_count_in_any_case_and_names_may_be_of_any_bytes(tmp_path, save_image, list_images):
    train = tmp_path / "train"
    (train / "Öl 图").mkdir(parents=True)
    source = save_image(tmp_path / "any.png")
    for name in (b"A.PNG", b"latin-\xe9.png", b"new\nline.png"):
        shutil.copy(source, os.fsencode(train / "Öl 图") + b"/" + name)
    listing = read_listing(list_images(train=train), "train")
    assert listing.paths.tolist() == [
        "Öl 图/".encode() + name for name in (b"A.PNG", b"latin-\xe9.png", b"new\nline.png")
    ]
    assert len(list(open_images(listing).fetch(np.arange(3)))) == 3


def test_links_that_lead_in_a_circle_are_refused(tmp_path, two_classes, list_images):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "back").symlink_to(two_classes)
    (two_classes / "bee" / "out").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(BingoError, match=r"out/back: "):
        list_images(train=two_classes)


def test_a_folder_that_cannot_be_entered_is_refused_by_name(two_classes, list_images, monkeypatch):
    scandir = os.scandir

    # Rights cannot be taken from root, as whom tests may run.
    def guarded(path):
        if str(path).endswith("bee"):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", guarded)
    with pytest.raises(BingoError, match=rf"{two_classes / 'bee'}: .*Permission denied"):
        list_images(train=two_classes)


def test_unreadable_images_are_left_out_counted_and_logged_if_asked(two_classes, list_images, caplog):
    (two_classes / "ant" / "0.png").write_bytes(b"")
    (two_classes / "bee" / "1.png").write_text("no image")
    (two_classes / "bee" / "9.png").symlink_to("nowhere.png")
    path = list_images(train=two_classes, on_bad_image="skip")
    listing = read_listing(path, "train")
    assert names_of(listing) == ["ant/1.png", "bee/0.png", "bee/2.png"]
    assert listing.label.tolist() == [0, 1, 1]
    assert listing.size.tolist() == [[21, 16], [22, 16], [24, 16]]
    assert (facts(path)["images"], facts(path)["unreadable"]) == (3, 3)
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    for name in ("ant/0.png", "bee/1.png", "bee/9.png"):
        assert sum(str(two_classes / name) in message for message in warnings) == 1


def test_validation_images_have_the_class_numbers_of_training(two_classes, tmp_path, save_image, list_images):
    save_image(tmp_path / "val" / "bee" / "0.png", 7)
    path = list_images(split="val", train=two_classes, val=tmp_path / "val")
    listing = read_listing(path, "val")
    assert listing.label.tolist() == [1]
    assert listing.classes == ["ant", "bee"]
    assert (facts(path)["images"], facts(path)["unreadable"]) == (1, 0)
    assert facts(path)["inputs"] == {"train": digest(list_images, two_classes)}


def test_a_validation_class_unknown_in_training_is_refused_by_name(two_classes, tmp_path, save_image, list_images):
    save_image(tmp_path / "val" / "cow" / "0.png")
    with pytest.raises(BingoError, match=rf"^data\.val: {tmp_path / 'val' / 'cow'} "):
        list_images(split="val", train=two_classes, val=tmp_path / "val")


@pytest.fixture
def many(tmp_path, save_image):
    """Two hundred images of ants, one hundred of bees, two of crickets and one dragonfly."""
    train = tmp_path / "train"
    for name, count in {"ant": 200, "bee": 100, "cricket": 2, "dragonfly": 1}.items():
        for number in range(count):
            save_image(train / name / f"{number}.png", number, (4, 4))
    return train


def split_of(list_images, train, **data):
    """Return the names of training and of validation images."""
    listings = [read_listing(list_images(split=split, train=train, **data), split) for split in ("train", "val")]
    assert listings[0].classes == listings[1].classes
    for listing in listings:
        assert [listing.classes[i] for i in listing.label] == [name.split("/")[0] for name in names_of(listing)]
    return tuple(names_of(listing) for listing in listings)


def test_images_that_are_held_out_are_a_share_of_each_class_and_no_training_images(many, list_images):
    train, val = split_of(list_images, many, held_out=0.2)
    whole = names_of(read_listing(list_images(train=many), "train"))
    assert sorted(train + val) == sorted(whole)
    assert len(set(train) | set(val)) == len(whole)
    counts = [sum(name.startswith(kind) for name in val) for kind in ("ant", "bee", "cricket", "dragonfly")]
    assert counts == pytest.approx([40, 20, 1, 0], abs=12)  # two standard deviations of 40
    assert counts[2:] == [1, 0]


def test_another_image_moves_none_between_training_and_validation(many, save_image, list_images):
    train, val = split_of(list_images, many, held_out=0.2)
    for number in range(200, 240):
        save_image(many / "bee" / f"{number}.png", number, (4, 4))
    more_train, more_val = split_of(list_images, many, held_out=0.2)
    assert set(train) < set(more_train)
    assert set(val) < set(more_val)


def test_nothing_to_hold_out_is_refused_by_key(tmp_path, save_image, list_images):
    save_image(tmp_path / "train" / "ant" / "0.png")
    with pytest.raises(BingoError, match=r"^data\.held_out: "):
        list_images(split="val", train=tmp_path / "train", held_out=0.5)


def test_max_train_and_max_val_draw_nested_subsets_of_all_images(two_classes, tmp_path, list_images):
    whole = read_listing(list_images(train=two_classes), "train")
    parts = []
    for limit in (1, 2, 4):
        data = {"train": two_classes, "val": two_classes, "max_train": limit, "max_val": limit}
        part = read_listing(list_images(**data), "train")
        positions = [names_of(whole).index(name) for name in names_of(part)]
        assert positions == sorted(set(positions))
        assert len(positions) == limit
        assert part.label.tolist() == whole.label[positions].tolist()
        assert part.size.tolist() == whole.size[positions].tolist()
        assert part.nbytes.tolist() == whole.nbytes[positions].tolist()
        assert part.source_digest == whole.digest
        assert len(read_listing(list_images(split="val", **data), "val")) == limit
        parts.append((set(positions), part.digest))
    assert parts[0][0] < parts[1][0] < parts[2][0]
    assert len({whole.digest, *(found for _, found in parts)}) == 4
    assert digest(list_images, two_classes, max_train=5) == whole.digest


def test_the_digest_depends_only_on_images_and_labels(two_classes, tmp_path, list_images):
    before = digest(list_images, two_classes)
    moved = shutil.copytree(two_classes, tmp_path / "moved")
    (moved / "ant" / "0.png").rename(moved / "ant" / "00.png")
    os.utime(moved / "bee" / "0.png", (0, 0))
    (moved / "notes.txt").write_text("x")
    preprocessing = {"size": 8, "resize": 8}
    assert digest(list_images, moved, threads=1, workers=3, preprocessing=preprocessing, on_bad_image="skip") == before


def test_a_named_set_is_listed_with_its_labels_and_both_splits(list_images, tmp_path):
    for split, count, total in (("train", 30, 10_000), ("val", 20, 5_000)):
        listing = read_listing(list_images(split=split, source="demo", max_train=30, max_val=20), split)
        assert listing.label.tolist() == load_arrays("demo", tmp_path, split)[1][listing.index].tolist()
        assert listing.index.tolist() == sorted(set(listing.index.tolist()))
        assert len(listing) == count
        # A random subset reaches far beyond the first images.
        assert listing.index.max() > total / 2
        assert (listing.size == 28).all()
        assert listing.classes == FASHION
        assert listing.paths is None


def _replace(name, change):
    def apply(group):
        values = change(group[name][:])
        del group[name]
        group[name] = values

    return apply


def _set(name, value):
    return lambda group: group.attrs.__setitem__(name, value)


def _no_group(group):
    file = group.file
    del file["train"]
    file["train"] = np.arange(5)


INCONSISTENT = {
    "fewer labels": _replace("label", lambda values: values[:-1]),
    "more paths": _replace("path", lambda values: np.append(values, values[:1])),
    "a label beyond the classes": _replace("label", lambda values: values + 1),
    "a label below -1": _replace("label", lambda values: values - 2),
    "sizes of one side": _replace("size", lambda values: values[:, :1]),
    "a file of no bytes": _replace("bytes", lambda values: values * 0),
    "paths as numbers": _replace("path", lambda values: np.arange(len(values))),
    "an index of a named set": lambda group: group.create_dataset("index", data=np.arange(5)),
    "a column instead of a group": _no_group,
    "classes that are no list": _set("classes", '{"ant": 0}'),
    "classes that are not JSON": _set("classes", "[ant"),
    "a digest that is a number": _set("digest", 7),
    "an unknown source": lambda group: group.file.attrs.__setitem__("source", "elsewhere"),
    "the source of a pack": lambda group: group.file.attrs.__setitem__("source", "pack"),
}


@pytest.mark.parametrize("change", INCONSISTENT.values(), ids=INCONSISTENT)
def test_a_listing_whose_parts_do_not_fit_is_refused(change, two_classes, list_images):
    path = list_images(train=two_classes)
    with h5py.File(path, "r+") as file:
        change(file["train"])
    assert refused(lambda path: read_listing(path, "train"), path) is not None


def test_a_fault_names_the_key_of_the_set_that_is_listed(two_classes, save_image, list_images, tmp_path):
    birds = {"train": two_classes, "key": "transfer.birds"}
    bad, stray = two_classes / "bee" / "1.png", two_classes / "stray.png"
    bad.write_text("no image")
    with pytest.raises(BingoError, match=rf"^transfer\.birds\.train: {bad} .*transfer\.birds\.on_bad_image"):
        list_images(**birds)
    save_image(stray)
    with pytest.raises(BingoError, match=rf"^transfer\.birds\.train: {stray} .*transfer\.birds\.labels"):
        list_images(**birds)
    stray.unlink()
    assert not (tmp_path / "listing.h5").exists()
    with pytest.raises(BingoError, match=r"^transfer\.birds\.val: "):
        list_images(split="val", on_bad_image="skip", **birds)


@pytest.mark.parametrize("key", ["train", "val"])
def test_folders_without_images_are_refused_by_key(key, two_classes, tmp_path, list_images):
    other = tmp_path / "other"
    (other / "ant").mkdir(parents=True)
    (other / "ant" / "notes.txt").write_text("x")
    with pytest.raises(BingoError, match=rf"^data\.{key}: {other} "):
        list_images(**{"train": two_classes, key: other, "split": key})


@pytest.mark.parametrize(
    "change",
    [
        # Bytes behind a PNG's end change no pixel, but the file is another.
        lambda train: (train / "bee" / "1.png").open("ab").write(b"\0"),
        lambda train: shutil.copy(train / "bee" / "0.png", train / "bee" / "3.png"),
        lambda train: (train / "bee" / "2.png").unlink(),
        lambda train: (train / "bee" / "0.png").rename(train / "ant" / "2.png"),  # the order of all images stays
    ],
    ids=["a byte", "an image more", "an image less", "a label"],
)
def test_the_digest_changes_with_images_and_labels(change, two_classes, list_images):
    before = digest(list_images, two_classes)
    change(two_classes)
    assert digest(list_images, two_classes) != before


def test_a_truncated_listing_or_one_of_the_other_split_is_refused(two_classes, list_images):
    path = list_images(train=two_classes)
    with pytest.raises(BingoError, match=rf"^{path}: .*\btrain\b.*\bval\b"):
        read_listing(path, "val")
    path.write_bytes(path.read_bytes()[:-100])
    assert refused(lambda path: read_listing(path, "train"), path) is not None
