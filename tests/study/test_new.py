"""Study files that are written for a folder: what they say, and that they are valid."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from bingo.data.folder import held_out
from bingo.errors import BingoError
from bingo.study.new import HELD_OUT_SHARE, FolderSurvey, Machine, study_text
from bingo.study.schema import parse_study

CPU, GPU = Machine(cuda=False, cores=2), Machine(cuda=True, cores=16)


def images(count):
    return [f"{kind}/{i}.jpg" for kind in ("ant", "bee") for i in range(count // 2)]


PHOTOS = FolderSurvey(
    train=Path("photos"),
    val=None,
    unused=[],
    names=images(2000),
    validation=[],
    classes=["ant", "bee"],
    held_out=set(),
    unlabelled="",
    unreadable={},
    decoded=2000,
    sides=(200, 400, 900),
    grey=False,
    mean=0.4,
    std=0.3,
)


def written(scale="full", machine=GPU, teacher=None, name="birds", **facts):
    """Return the text and the study written for a folder like `PHOTOS`; a fifth validates if no others do."""
    found = replace(PHOTOS, **facts)
    if found.classes and not found.val and "held_out" not in facts:
        found = replace(found, held_out=held_out(found.names, HELD_OUT_SHARE))
    text = study_text(name, Path("photos"), Path("birds.yaml"), found, machine, scale, teacher)
    return text, parse_study(yaml.safe_load(text), "birds.yaml")


def networks(study):
    return (*study.teachers.values(), *study.students.values())


def test_on_a_gpu_networks_and_schedule_are_the_papers():
    names = images(165_000)
    _, study = written(names=names, held_out=set(names[::5]))
    teacher = study.teachers["resnet50"]
    for entry in networks(study):
        architecture = "resnet50" if entry is teacher else "resnet18"
        assert (entry.backbone.architecture, entry.backbone.width, entry.backbone.stem) == (architecture, 1, "imagenet")
        training = entry.training
        assert (training.epochs, training.batch_size, training.lr, training.views) == (200, 256, 0.03, "paper")
        assert entry.queue_size == 65536
    assert teacher.key_momentum == 0.999
    assert (study.data.preprocessing.size, study.data.preprocessing.resize) == (224, 256)
    assert study.evaluations == ["linear-moco", "knn-10"]
    assert study.data.workers == 16


def test_without_a_gpu_a_trial_is_small_and_says_so():
    text, study = written("trial", CPU)
    for entry in networks(study):
        assert entry.backbone.architecture == "resnet10"
        assert entry.backbone.width <= 0.25
        assert 15_000 < entry.training.epochs * 1600 < 25_000
        assert entry.training.views == "cifar"
    assert (study.data.preprocessing.size, study.data.pack.shorter_side, study.data.workers) == (64, 128, 0)
    assert study.evaluations == ["linear-moco-small", "knn-10"]
    assert "--scale full" in text


def test_a_trial_of_many_images_uses_a_part_of_them():
    _, study = written("trial", CPU, names=images(20_000))
    assert (study.data.max_train, study.data.max_val) == (5_000, 1_000)
    assert study.teachers["resnet10-w16"].training.epochs == 4


@pytest.mark.parametrize("scale", ["trial", "full"])
@pytest.mark.parametrize("count", [20, 60, 500, 3000, 12_000])
def test_batch_queue_and_bags_fit_the_number_of_images(count, scale):
    _, study = written(scale, names=images(count))
    used = min(count, study.data.max_train or count)
    for entry in networks(study):
        assert entry.training.batch_size <= max(8, 0.8 * used / 4)
        assert entry.queue_size <= used / 2
        rate = 0.06 / 128 if scale == "trial" else 0.03 / 256
        assert entry.training.lr == pytest.approx(entry.training.batch_size * rate, rel=1e-3)


@pytest.mark.parametrize(
    ("side", "grey", "expected"),
    [
        (28, True, (28, 28, "small", "small")),
        (32, False, (32, 32, "small", "cifar")),
        (96, False, (96, 110, "imagenet", "paper")),
        (400, True, (224, 256, "imagenet", "paper")),
    ],
)
def test_input_stem_and_views_follow_from_the_images(side, grey, expected):
    _, study = written(sides=(side, side, side), grey=grey)
    entry, preprocessing = study.students["bingo"], study.data.preprocessing
    assert (preprocessing.size, preprocessing.resize, entry.backbone.stem, entry.training.views) == expected
    assert preprocessing.mean == ([0.4] * 3 if grey else [0.485, 0.456, 0.406])
    assert preprocessing.std == ([0.3] * 3 if grey else [0.229, 0.224, 0.225])


def test_a_fifth_of_each_class_is_held_out_unless_there_are_validation_images():
    text, study = written()
    assert study.data.held_out == 0.2
    held = int(re.search(r"held_out: 0.2  # .*: (\d+) images", text)[1])
    assert 320 < held < 480
    text, study = written(val=Path("photos/val"), validation=["ant/1.jpg"] * 40)
    assert (study.data.held_out, study.data.val) == (None, "photos/val")
    assert "40 images" in text


@pytest.mark.parametrize(
    "facts",
    [
        {"classes": [], "unlabelled": "there are no class folders"},
        {"names": [f"{i}/{j}.jpg" for i in range(3) for j in range(9)], "held_out": set()},
    ],
    ids=["no labels", "few images"],
)
def test_a_folder_on_which_nothing_can_be_evaluated_gets_a_study_without_evaluations(facts):
    text, study = written(**facts)
    assert (study.evaluations, study.tables, study.data.held_out) == ([], {}, None)
    assert facts.get("unlabelled", "") in text
    assert study.data.labels == ("none" if facts.get("unlabelled") else "auto")


def test_unreadable_files_are_skipped_and_not_counted():
    assert written()[1].data.on_bad_image == "fail"
    broken = {f"v/{i}.jpg": "truncated" for i in range(5)}
    few = {"train": Path("t"), "val": Path("v"), "validation": [f"{i}.jpg" for i in range(20)], "names": images(32)}
    text, study = written(**few, unreadable=broken)
    assert study.data.on_bad_image == "skip"
    assert "val: v  # 15 images" in text
    with pytest.raises(BingoError, match=r"^--data: .*15"):
        written(names=images(16), classes=[], unreadable={"photos/ant/0.jpg": "truncated"})


def test_a_given_teacher_replaces_the_trained_one():
    _, study = written(teacher=Path("moco 800.pth.tar"))
    assert study.teachers["teacher"].checkpoint == "moco 800.pth.tar"
    assert study.teacher_of("bingo") == "teacher"


@pytest.mark.parametrize("path", ["a b/photos", "photos: mine", "#1", "Fotos/Vögel", "1e3", "~", "null", "-x", "'q\""])
def test_paths_of_any_spelling_are_read_back(path):
    assert written(train=Path(path))[1].data.train == path


@pytest.mark.parametrize("name", ["no", "123", "null"])
def test_names_that_yaml_takes_for_something_else_are_quoted(name):
    _, study = written(name=name)
    assert (study.study, list(study.tables)) == (name, [name])


def test_too_small_images_are_refused():
    with pytest.raises(BingoError, match=r"^--data: .*\b7\b"):
        written(sides=(7, 7, 7))
