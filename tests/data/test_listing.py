import errno
import json
import logging
import os
import re
import shutil
import zlib

import h5py
import numpy as np
import pytest

from bingo.data.arrays import load_arrays
from bingo.data.images import open_images
from bingo.data.listing import read_listing
from bingo.errors import BingoError
from bingo.study.images import FolderData
from bingo.study.jobs import DataJob
from tests.conftest import refused
from tests.stage import run_stage

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


def test_a_fault_names_the_key_of_the_set_that_is_listed(two_classes, save_image, list_images):
    birds = {"train": two_classes, "key": "transfer.birds"}
    (two_classes / "bee" / "1.png").write_text("no image")
    with pytest.raises(
        BingoError, match=r"^transfer\.birds\.train: .*; repair .* set transfer\.birds\.on_bad_image: skip$"
    ):
        list_images(**birds)
    save_image(two_classes / "stray.png")
    with pytest.raises(
        BingoError, match=r"^transfer\.birds\.train: .*; move it, or set transfer\.birds\.labels: none$"
    ):
        list_images(**birds)
    (two_classes / "stray.png").unlink()
    with pytest.raises(BingoError, match=r"^transfer\.birds\.val: this study has no validation images"):
        list_images(split="val", on_bad_image="skip", **birds)


def test_declined_labels_are_not_read_from_folders(two_classes, save_image, list_images):
    save_image(two_classes / "stray.png", 9)
    listing = read_listing(list_images(train=two_classes, labels="none"), "train")
    assert len(listing) == 6
    assert (listing.label == -1).all()
    assert listing.classes == []


def test_an_image_beside_class_folders_is_refused_by_name(two_classes, save_image, list_images):
    save_image(two_classes / "stray.png")
    with pytest.raises(BingoError, match=rf"data\.train: {two_classes / 'stray.png'} lies in no class folder"):
        list_images(train=two_classes)


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


def test_a_linked_class_folder_is_listed_like_any_other(tmp_path, two_classes, list_images):
    before = digest(list_images, two_classes)
    (two_classes / "bee").rename(tmp_path / "elsewhere")
    (two_classes / "bee").symlink_to(tmp_path / "elsewhere")
    listing = read_listing(list_images(train=two_classes), "train")
    assert listing.classes == ["ant", "bee"]
    assert listing.digest == before


def test_a_link_to_a_folder_around_it_is_refused_by_name(two_classes, list_images):
    (two_classes / "bee" / "again").symlink_to(two_classes)
    with pytest.raises(BingoError, match=rf"{two_classes / 'bee' / 'again'}: links to a folder around it"):
        list_images(train=two_classes)


def test_links_that_lead_in_a_circle_are_refused(tmp_path, two_classes, list_images):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "back").symlink_to(two_classes)
    (two_classes / "bee" / "out").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(BingoError, match=r"out/back: links to a folder around it"):
        list_images(train=two_classes)


def test_a_folder_that_cannot_be_entered_is_refused_by_name(two_classes, list_images, monkeypatch):
    scandir = os.scandir

    # Rights cannot be taken from root, as whom tests may run.
    def guarded(path):
        if str(path).endswith("bee"):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", guarded)
    with pytest.raises(BingoError, match=rf"{two_classes / 'bee'}: cannot be read \(Permission denied\)"):
        list_images(train=two_classes)


def test_an_unreadable_image_stops_the_stage_and_is_named(two_classes, list_images, tmp_path):
    (two_classes / "bee" / "1.png").write_text("no image")
    with pytest.raises(BingoError, match=rf"data\.train: {two_classes / 'bee' / '1.png'} cannot be read"):
        list_images(train=two_classes)
    assert not (tmp_path / "listing.h5").exists()


def test_unreadable_images_are_left_out_counted_and_logged_where_asked(two_classes, list_images, caplog):
    (two_classes / "ant" / "0.png").write_bytes(b"")
    (two_classes / "bee" / "1.png").write_text("no image")
    (two_classes / "bee" / "9.png").symlink_to("nowhere.png")
    with caplog.at_level(logging.INFO, "bingo"):
        path = list_images(train=two_classes, on_bad_image="skip")
    listing = read_listing(path, "train")
    assert names_of(listing) == ["ant/1.png", "bee/0.png", "bee/2.png"]
    assert listing.label.tolist() == [0, 1, 1]
    assert listing.size.tolist() == [[21, 16], [22, 16], [24, 16]]
    assert (facts(path)["images"], facts(path)["unreadable"]) == (3, 3)
    assert "train: 3 images, 3 unreadable left out" in caplog.messages
    for name in ("ant/0.png", "bee/1.png", "bee/9.png"):
        assert sum(f"{two_classes / name} cannot be read" in message for message in caplog.messages) == 1


def test_a_folder_of_unreadable_images_alone_is_refused(tmp_path, list_images):
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "0.png").write_text("no image")
    with pytest.raises(BingoError, match=r"data\.train: none of the 1 images in .* can be read"):
        list_images(train=tmp_path / "train", on_bad_image="skip")


@pytest.mark.parametrize("key", ["train", "val"])
def test_folders_that_are_missing_empty_or_without_images_are_refused_by_key(key, two_classes, tmp_path, list_images):
    other = tmp_path / "other"
    folders = {"train": two_classes, key: other, "split": key}
    with pytest.raises(BingoError, match=rf"data\.{key}: there is no folder {other}"):
        list_images(**folders)
    other.mkdir()
    with pytest.raises(BingoError, match=rf"data\.{key}: the folder {other} is empty"):
        list_images(**folders)
    (other / "ant").mkdir()
    (other / "ant" / "notes.txt").write_text("x")
    with pytest.raises(BingoError, match=rf"data\.{key}: {other} holds no image"):
        list_images(**folders)


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
    with pytest.raises(BingoError, match=rf"data\.val: {tmp_path / 'val' / 'cow'} is no class folder"):
        list_images(split="val", train=two_classes, val=tmp_path / "val")


def test_the_listing_of_the_other_split_is_refused(two_classes, list_images):
    path = list_images(train=two_classes)
    with pytest.raises(BingoError, match=rf"{path}: lists the train images, but the val ones are needed"):
        read_listing(path, "val")


def test_validation_images_of_a_study_that_names_none_are_refused(two_classes, tmp_path, list_images, monkeypatch):
    monkeypatch.chdir(two_classes)  # not what is listed instead
    with pytest.raises(BingoError, match=r"data\.val: this study has no validation images"):
        list_images(split="val", train=two_classes)
    assert not (tmp_path / "val-listing.h5").exists()


def test_validation_images_without_a_listing_of_the_training_images_are_refused(two_classes, tmp_path):
    data = FolderData(source="folder", train=str(two_classes), val="photos")
    with pytest.raises(BingoError, match="validation images need --train-listing"):
        run_stage(DataJob, split="val", data=data, output=tmp_path / "val-listing.h5")


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


def test_a_larger_share_holds_out_all_that_a_smaller_one_does(many, list_images):
    drawn = [set(split_of(list_images, many, held_out=share)[1]) for share in (0.01, 0.3, 0.9999)]
    assert drawn[0] < drawn[1] < drawn[2]
    assert [len(drawn[2] & {f"{kind}/{i}.png" for i in range(300)}) for kind in ("cricket", "dragonfly")] == [1, 0]
    assert len(drawn[0] & {f"bee/{i}.png" for i in range(100)}) >= 1


def test_images_are_held_out_where_the_folder_is_moved_to(many, tmp_path, list_images):
    before = split_of(list_images, many, held_out=0.2)
    assert split_of(list_images, shutil.copytree(many, tmp_path / "moved"), held_out=0.2) == before


def test_nothing_to_hold_out_is_refused_by_key(tmp_path, save_image, list_images):
    save_image(tmp_path / "train" / "ant" / "0.png")
    with pytest.raises(BingoError, match=r"^data\.held_out: no class in .* has two images; leave it out$"):
        list_images(split="val", train=tmp_path / "train", held_out=0.5)


def test_a_fault_in_a_held_out_image_names_the_folder_that_holds_it(many, list_images):
    _, val = split_of(list_images, many, held_out=0.2)
    (many / val[0]).write_text("no image")
    with pytest.raises(BingoError, match=rf"^data\.train: {many / val[0]} cannot be read"):
        list_images(split="val", train=many, held_out=0.2)


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


def test_the_digest_changes_with_a_byte_of_an_image(two_classes, list_images):
    before = digest(list_images, two_classes)
    path = two_classes / "bee" / "1.png"
    content = path.read_bytes()
    changed = set()
    for byte in range(20):
        # Bytes behind a PNG's end change no pixel, but the file is another.
        path.write_bytes(content + bytes([byte]))
        changed.add(digest(list_images, two_classes))
    assert len(changed - {before}) == 20
    path.write_bytes(content)
    assert digest(list_images, two_classes) == before


def test_the_digest_changes_with_an_image_more_or_less(two_classes, save_image, list_images):
    before = digest(list_images, two_classes)
    more = save_image(two_classes / "bee" / "3.png", 9)
    assert digest(list_images, two_classes) != before
    more.unlink()
    (two_classes / "bee" / "2.png").unlink()
    assert digest(list_images, two_classes) != before


def test_the_digest_changes_with_a_label(two_classes, list_images):
    before = digest(list_images, two_classes)
    # The order of all images stays.
    (two_classes / "bee" / "0.png").rename(two_classes / "ant" / "2.png")
    assert digest(list_images, two_classes) != before


def test_the_digest_depends_on_nothing_but_images_and_labels(two_classes, tmp_path, list_images):
    before = digest(list_images, two_classes)
    moved = shutil.copytree(two_classes, tmp_path / "moved")
    (moved / "ant" / "0.png").rename(moved / "ant" / "00.png")
    os.utime(moved / "bee" / "0.png", (0, 0))
    (moved / "notes.txt").write_text("x")
    preprocessing = {"size": 8, "resize": 8}
    assert digest(list_images, moved, threads=1, workers=3, preprocessing=preprocessing, on_bad_image="skip") == before


def test_settings_that_cannot_change_a_listing_leave_the_same_bytes(two_classes, list_images):
    first = list_images(train=two_classes).read_bytes()
    again = list_images(
        train=two_classes, threads=1, workers=3, preprocessing={"size": 8, "resize": 8}, val="nowhere", max_val=2
    )
    assert again.read_bytes() == first


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


def test_a_selection_keeps_the_rows_in_step_and_has_an_own_digest(two_classes, list_images):
    whole = read_listing(list_images(train=two_classes), "train")
    rows = np.array([3, 0])
    part = whole.select(rows)
    assert names_of(part) == ["bee/1.png", "ant/0.png"]
    assert part.label.tolist() == [1, 0]
    assert part.size.tolist() == [[23, 16], [20, 16]]
    assert part.nbytes.tolist() == whole.nbytes[rows].tolist()
    assert len({whole.digest, part.digest, whole.select(rows[::-1]).digest}) == 3


def test_a_listing_cut_off_anywhere_is_refused(two_classes, list_images):
    path = list_images(train=two_classes)
    content = path.read_bytes()
    for length in [*range(0, len(content), 211), len(content) - 1]:
        path.write_bytes(content[:length])
        with pytest.raises(BingoError, match=str(path)):
            read_listing(path, "train")


@pytest.mark.parametrize("name", ["label", "size", "path", "bytes", "crc32"])
def test_a_flipped_bit_in_the_rows_of_a_listing_is_refused(name, two_classes, list_images):
    path = list_images(train=two_classes)
    with h5py.File(path) as file:
        chunk = file[f"train/{name}"].id.get_chunk_info(0)
    content = bytearray(path.read_bytes())
    content[chunk.byte_offset + chunk.size // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(BingoError, match=rf"{path}: truncated or damaged"):
        read_listing(path, "train")


def _replace(name, change):
    def apply(group):
        values = change(group[name][:])
        del group[name]
        group[name] = values

    return apply


def _set(name, value):
    return lambda group: group.attrs.__setitem__(name, value)


INCONSISTENT = {
    "fewer labels": _replace("label", lambda values: values[:-1]),
    "more paths": _replace("path", lambda values: np.append(values, values[:1])),
    "labels as numbers with a point": _replace("label", lambda values: values.astype(float)),
    "labels of 32 bits": _replace("label", lambda values: values.astype(np.int32)),
    "a label beyond the classes": _replace("label", lambda values: values + 1),
    "a label below -1": _replace("label", lambda values: values - 2),
    "an empty image": _replace("size", lambda values: values * 0),
    "sizes of one side": _replace("size", lambda values: values[:, :1]),
    "sizes in a row": _replace("size", lambda values: values[:, 0]),
    "a file of no bytes": _replace("bytes", lambda values: values * 0),
    "signed checksums": _replace("crc32", lambda values: values.astype(np.int64)),
    "checksums as a table": _replace("crc32", lambda values: values[:, None]),
    "paths as numbers": _replace("path", lambda values: np.arange(len(values))),
    "no checksums": lambda group: group.pop("crc32"),
    "no labels": lambda group: group.pop("label"),
    "an index of a named set": lambda group: group.create_dataset("index", data=np.arange(5)),
    "nothing": lambda group: [_replace(name, lambda values: values[:0])(group) for name in list(group)],
    "a group in a column's place": lambda group: (group.pop("size"), group.create_group("size")),
    "classes that are no list": _set("classes", '{"ant": 0}'),
    "classes without names": _set("classes", "[0, 1]"),
    "classes that are no JSON": _set("classes", "[ant"),
    "a digest that is a number": _set("digest", 7),
    "no digest": lambda group: group.attrs.__delitem__("digest"),
    "an unknown source": lambda group: group.file.attrs.__setitem__("source", "elsewhere"),
    "a source that is a number": lambda group: group.file.attrs.__setitem__("source", 3),
    "the source of an array": lambda group: group.file.attrs.__setitem__("source", "cifar10"),
    "the source of a pack": lambda group: group.file.attrs.__setitem__("source", "pack"),
}


@pytest.mark.parametrize("change", INCONSISTENT.values(), ids=INCONSISTENT)
def test_a_listing_whose_parts_do_not_fit_is_refused(change, two_classes, list_images):
    path = list_images(train=two_classes)
    with h5py.File(path, "r+") as file:
        change(file["train"])
    message = refused(lambda path: read_listing(path, "train"), path)
    assert message is not None
    assert re.search("is no sound listing|truncated or damaged", message)


def test_a_split_that_is_no_group_is_refused(two_classes, list_images):
    path = list_images(train=two_classes)
    with h5py.File(path, "r+") as file:
        del file["train"]
        file["train"] = np.arange(5)
    assert refused(lambda path: read_listing(path, "train"), path) is not None


def test_files_are_listed_with_their_checksums(two_classes, list_images):
    listing = read_listing(list_images(train=two_classes), "train")
    assert listing.crc32.tolist() == [zlib.crc32(listing.path(i).read_bytes()) for i in range(5)]
