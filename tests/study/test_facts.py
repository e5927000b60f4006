import subprocess
import sys
from dataclasses import replace

import pytest

from bingo.data.arrays import load_arrays
from bingo.errors import BingoError
from bingo.study.facts import SourceFacts, has_labels, source_facts
from bingo.study.images import DemoData, FolderData, TorchvisionData


def folder_data(train, **keys):
    return FolderData(source="folder", train=str(train), **keys)


@pytest.fixture
def classes(tmp_path):
    """Class folders, one of them a link, beside what is none."""
    train = tmp_path / "train"
    (train / "cat").mkdir(parents=True)
    (train / ".cache").mkdir()
    (train / "notes.txt").write_text("x")
    (tmp_path / "elsewhere").mkdir()
    (train / "ant").symlink_to(tmp_path / "elsewhere")
    return train


@pytest.fixture
def flat(tmp_path):
    train = tmp_path / "flat"
    train.mkdir()
    (train / "1.jpg").write_bytes(b"x")
    return train


def test_named_sets_have_labels_and_a_validation_split_without_a_look_at_the_disk(tmp_path):
    facts = SourceFacts(labels=True, validation=True, most_images=10_000, folders={"train": [], "val": []})
    assert source_facts(DemoData(source="demo"), "data") == facts
    assert len(load_arrays("demo", tmp_path, "train")[0]) == 10_000
    cifar = TorchvisionData(source="cifar10", root=str(tmp_path / "absent"))
    assert source_facts(cifar, "data") == replace(facts, most_images=50_000)
    assert source_facts(cifar.model_copy(update={"max_train": 7}), "data") == replace(facts, most_images=7)


def test_facts_of_class_folders_name_every_folder_whose_files_may_come_and_go(classes, flat):
    facts = source_facts(folder_data(classes, val=str(flat)), "data")
    folders = {"train": [str(classes), str(classes / "ant"), str(classes / "cat")], "val": [str(flat)]}
    assert facts == SourceFacts(labels=True, validation=True, most_images=None, folders=folders)


@pytest.mark.parametrize(("labels", "expected"), [("auto", True), ("folders", True), ("none", False)])
def test_class_folders_are_labels_unless_declined(classes, labels, expected):
    assert has_labels(folder_data(classes, labels=labels), "data") is expected


@pytest.mark.parametrize(
    ("count", "last", "expected"),
    [(1000, "n15075141", True), (999, "n15075141", False), (1000, "birds", False), (1000, "n150751410", False)],
)
def test_imagenet_is_told_by_a_thousand_wordnet_numbers(count, last, expected, tmp_path):
    for number in range(count - 1):
        (tmp_path / f"n{1440764 + number:08d}").mkdir()
    (tmp_path / last).mkdir()
    assert source_facts(folder_data(tmp_path), "data").is_imagenet is expected


def test_asking_for_facts_does_not_load_torch():
    code = "import sys, bingo.study.schema, bingo.study.facts; print('torch' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "False"


def test_a_flat_folder_has_no_labels_and_no_validation_images(flat, classes):
    facts = source_facts(folder_data(flat), "data")
    assert (facts.labels, facts.validation, facts.folders) == (False, False, {"train": [str(flat)], "val": []})
    held_out = source_facts(folder_data(classes, held_out=0.2), "data")
    assert held_out.validation
    assert held_out.folders["val"] == held_out.folders["train"]


@pytest.mark.parametrize(
    ("key", "data"),
    [
        ("train", {"labels": "folders", "train": "flat"}),
        ("held_out", {"held_out": 0.2, "train": "flat"}),
        ("train", {"train": "absent"}),
        ("val", {"val": "absent"}),
        ("train", {"train": "empty"}),
        ("train", {"train": "braces"}),
    ],
)
def test_a_folder_that_does_not_do_is_refused_by_key(key, data, classes, flat, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / ".hidden").write_text("x")
    (tmp_path / "braces" / "a{b}").mkdir(parents=True)
    folders = {name: str(tmp_path / data[name]) for name in ("train", "val") if name in data}
    with pytest.raises(BingoError, match=rf"^transfer\.birds\.{key}: .*{tmp_path}"):
        source_facts(folder_data(**{"train": classes, **data, **folders}), "transfer.birds")
