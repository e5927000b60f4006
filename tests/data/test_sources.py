import subprocess
import sys
from dataclasses import replace

import pytest

from bingo.data.arrays import load_arrays
from bingo.errors import BingoError
from bingo.study.facts import SourceFacts, class_folders, has_labels, source_facts
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


def test_class_folders_are_sorted_with_links_and_without_hidden_ones_and_files(classes):
    assert class_folders(classes, "data.train") == [str(classes / "ant"), str(classes / "cat")]


def test_facts_of_class_folders_name_every_folder_whose_files_may_come_and_go(classes, flat):
    facts = source_facts(folder_data(classes, val=str(flat)), "data")
    folders = {"train": [str(classes), str(classes / "ant"), str(classes / "cat")], "val": [str(flat)]}
    assert facts == SourceFacts(labels=True, validation=True, most_images=None, folders=folders)


def test_facts_of_a_flat_folder_are_no_labels_and_no_validation(flat):
    assert source_facts(folder_data(flat), "data") == SourceFacts(
        labels=False, validation=False, most_images=None, folders={"train": [str(flat)], "val": []}
    )


def test_images_that_are_held_out_come_and_go_with_the_training_images(classes):
    facts = source_facts(folder_data(classes, held_out=0.2), "data")
    assert facts.validation
    assert facts.folders["val"] == facts.folders["train"] == [str(classes), str(classes / "ant"), str(classes / "cat")]


def test_images_held_out_of_a_flat_folder_are_refused_by_key(flat):
    with pytest.raises(BingoError, match=rf"^data\.held_out: {flat} has no class folders to hold images out of"):
        source_facts(folder_data(flat, held_out=0.2), "data")


@pytest.mark.parametrize(("labels", "expected"), [("auto", True), ("folders", True), ("none", False)])
def test_class_folders_are_labels_unless_declined(classes, labels, expected):
    assert has_labels(folder_data(classes, labels=labels), "data") is expected


@pytest.mark.parametrize("section", ["data", "transfer.birds"])
def test_labels_asked_of_a_flat_folder_are_refused_by_name(section, flat):
    message = rf"^{section}\.train: {flat} has no class folders; set {section}\.labels: none$"
    with pytest.raises(BingoError, match=message):
        has_labels(folder_data(flat, labels="folders"), section)


@pytest.mark.parametrize("section", ["data", "transfer.birds"])
@pytest.mark.parametrize("key", ["train", "val"])
def test_missing_and_empty_folders_are_refused_by_key_and_name(key, section, classes, tmp_path):
    def facts(folder):
        return source_facts(folder_data(**{"train": classes, key: str(folder)}), section)

    with pytest.raises(BingoError, match=rf"^{section}\.{key}: there is no folder {tmp_path / 'absent'}"):
        facts(tmp_path / "absent")
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / ".hidden").write_text("x")
    with pytest.raises(BingoError, match=rf"^{section}\.{key}: the folder {tmp_path / 'empty'} is empty"):
        facts(tmp_path / "empty")


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


def test_a_class_folder_with_braces_is_refused_by_name(classes):
    (classes / "a{b}").mkdir()
    with pytest.raises(BingoError, match=r"data\.train: .*a\{b\} has braces in its name"):
        source_facts(folder_data(classes), "data")
