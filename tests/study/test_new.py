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
PHOTOS = FolderSurvey(
    train=Path("photos"),
    val=None,
    aside=[],
    names=[f"{kind}/{i}.jpg" for kind in ("ant", "bee") for i in range(1000)],
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


def photos(**facts):
    """Return a folder like `PHOTOS`; a fifth of its images validates where no others do."""
    found = replace(PHOTOS, **facts)
    if found.classes and not found.val and "held_out" not in facts:
        found = replace(found, held_out=held_out(found.names, HELD_OUT_SHARE))
    return found


def written(scale="full", machine=GPU, teacher=None, **facts):
    """Return the text and the study that are written for a folder like `PHOTOS`."""
    text = study_text("birds", Path("photos"), Path("birds.yaml"), photos(**facts), machine, scale, teacher)
    return text, parse_study(yaml.safe_load(text), "birds.yaml")


def test_on_a_gpu_networks_and_schedule_are_the_papers():
    text, study = written(names=[f"{kind}/{i}.jpg" for kind in ("ant", "bee") for i in range(100_000)])
    teacher = study.teachers["resnet50"]
    for entry, architecture in ((teacher, "resnet50"), *((entry, "resnet18") for entry in study.students.values())):
        assert (entry.backbone.architecture, entry.backbone.width, entry.backbone.stem) == (architecture, 1, "imagenet")
        training = entry.training
        assert (training.epochs, training.batch_size, training.lr, training.views) == (200, 256, 0.03, "paper")
        assert entry.queue_size == 65536
    assert teacher.key_momentum == 0.999
    assert (study.data.preprocessing.size, study.data.preprocessing.resize) == (224, 256)
    assert study.evaluations == ["linear-moco", "knn-10"]
    assert study.data.workers == 16
    assert "hours on an H200" in text
    assert "    resize: 256" in text


def test_without_a_gpu_a_trial_is_small_and_says_so():
    text, study = written("trial", CPU)
    for entry in (*study.teachers.values(), *study.students.values()):
        assert entry.backbone.architecture == "resnet10"
        assert entry.backbone.width <= 0.25
        seen = entry.training.epochs * 1600
        assert 15_000 < seen < 25_000
        assert entry.training.views == "cifar"
    assert study.data.preprocessing.size == 64
    assert study.data.pack.shorter_side == 128
    assert study.data.workers == 0
    assert study.evaluations == ["linear-moco-small", "knn-10"]
    assert "--scale full" in text


def test_a_trial_of_many_images_uses_a_part_of_them():
    _, study = written("trial", CPU, names=[f"{kind}/{i}.jpg" for kind in ("ant", "bee") for i in range(50_000)])
    assert (study.data.max_train, study.data.max_val) == (5_000, 1_000)
    assert study.teachers["resnet10-w16"].training.epochs == 4


@pytest.mark.parametrize("scale", ["trial", "full"])
@pytest.mark.parametrize("images", [20, 60, 500, 3000, 80_000])
def test_batch_queue_and_bags_fit_the_number_of_images(images, scale):
    names = [f"{kind}/{i}.jpg" for kind in ("ant", "bee") for i in range(images // 2)]
    _, study = written(scale, names=names)
    used = min(images, study.data.max_train or images)
    for entry in (*study.teachers.values(), *study.students.values()):
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
        (400, False, (224, 256, "imagenet", "paper")),
        (400, True, (224, 256, "imagenet", "paper")),
    ],
)
def test_input_stem_and_views_follow_from_the_images(side, grey, expected):
    _, study = written(sides=(side, side, side), grey=grey)
    entry, preprocessing = study.students["bingo"], study.data.preprocessing
    assert (preprocessing.size, preprocessing.resize, entry.backbone.stem, entry.training.views) == expected
    assert preprocessing.mean == ([0.4] * 3 if grey else [0.485, 0.456, 0.406])
    assert preprocessing.std == ([0.3] * 3 if grey else [0.229, 0.224, 0.225])


def test_a_fifth_of_each_class_is_held_out_where_nothing_validates():
    text, study = written()
    assert study.data.held_out == 0.2
    held = int(re.search(r"held_out: 0.2  # .*: (\d+) images", text)[1])
    assert 320 < held < 480


def test_what_validates_is_used():
    text, study = written(val=Path("photos/val"), validation=["ant/1.jpg"] * 40)
    assert (study.data.held_out, study.data.val) == (None, "photos/val")
    assert "40 images" in text


@pytest.mark.parametrize(
    ("facts", "why"),
    [
        (
            {"classes": [], "unlabelled": "there are no class folders"},
            "accuracies need labels: there are no class folders",
        ),
        (
            {"names": [f"{i}/{j}.jpg" for i in range(3) for j in range(9)], "held_out": set()},
            "too few images to hold some out",
        ),
    ],
)
def test_where_nothing_can_be_evaluated_the_file_says_why(facts, why):
    text, study = written(**facts)
    assert (study.evaluations, study.tables, study.data.held_out) == ([], {}, None)
    assert why in text
    assert study.data.labels == ("none" if facts.get("unlabelled") else "auto")


def test_unreadable_files_are_skipped():
    _, study = written(unreadable={"photos/ant/1.jpg": "truncated"})
    assert study.data.on_bad_image == "skip"
    assert written()[1].data.on_bad_image == "fail"


def test_a_given_teacher_takes_the_place_of_a_trained_one():
    _, study = written(teacher=Path("moco 800.pth.tar"))
    assert study.teachers["teacher"].checkpoint == "moco 800.pth.tar"
    assert study.teacher_of("bingo") == "teacher"


@pytest.mark.parametrize("path", ["a b/photos", "photos: mine", "#1", "Fotos/Vögel", "1e3", "~", "null", "-x", "'q\""])
def test_paths_of_any_spelling_are_read_back(path):
    assert written(train=Path(path))[1].data.train == path


def test_too_few_or_too_small_images_are_refused():
    with pytest.raises(BingoError, match="--data: photos holds 15 training images; 16 are the fewest"):
        written(names=[f"{i}.jpg" for i in range(15)], classes=[], unlabelled="none")
    with pytest.raises(BingoError, match="--data: the images' shorter side is 7 px in the median; 8 are the least"):
        written(sides=(7, 7, 7))


@pytest.mark.parametrize("name", ["no", "on", "123", "null"])
def test_names_that_yaml_takes_for_something_else_are_quoted(name):
    text = study_text(name, Path("photos"), Path("x.yaml"), photos(), GPU, "full", None)
    study = parse_study(yaml.safe_load(text), "x.yaml")
    assert study.study == name
    assert list(study.tables) == [name]


def test_unreadable_images_are_missing_where_they_lie():
    broken = {f"v/{i}.jpg": "truncated" for i in range(5)}
    folders = {"train": Path("t"), "val": Path("v"), "validation": [f"{i}.jpg" for i in range(20)]}
    text, _ = written(**folders, names=[f"ant/{i}.jpg" for i in range(16)], classes=["ant", "bee"], unreadable=broken)
    assert "val: v  # 15 images" in text
    with pytest.raises(BingoError, match="holds 15 training images"):
        written(names=[f"ant/{i}.jpg" for i in range(16)], classes=[], unreadable={"photos/ant/0.jpg": "truncated"})
