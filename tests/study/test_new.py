"""Study files that are written for a folder: what they say, and that they are valid."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from bingo import new
from bingo.study.schema import parse_study
from bingo.data.survey import Survey
from bingo.errors import BingoError
from bingo.study.new import Machine, study_text, write_study
from bingo.study.plan import Plan

CPU, GPU = Machine(cuda=False, cores=2), Machine(cuda=True, cores=16)
PHOTOS = Survey(
    train=Path("photos"),
    val=None,
    aside=[],
    names=[f"{kind}/{i}.jpg" for kind in ("ant", "bee") for i in range(1000)],
    validation=[],
    classes=["ant", "bee"],
    unlabelled="",
    unreadable={},
    decoded=2000,
    sides=(200, 400, 900),
    grey=False,
    mean=0.4,
    std=0.3,
)


def written(scale="full", machine=GPU, teacher=None, **facts):
    """Return the text and the study that are written for a folder like `PHOTOS`."""
    text = study_text("birds", Path("photos"), Path("birds.yaml"), replace(PHOTOS, **facts), machine, scale, teacher)
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
            {"names": [f"{i}/{j}.jpg" for i in range(3) for j in range(9)], "classes": ["0", "1", "2"]},
            "too few images to hold some out",
        ),
    ],
)
def test_where_nothing_can_be_evaluated_the_file_says_why(facts, why, monkeypatch):
    monkeypatch.setattr(new, "HELD_OUT", 0.001)  # so that one of each class is drawn
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


@pytest.fixture
def photos(tmp_path, monkeypatch):
    """A folder of forty photographs in two classes, one of which cannot be read; it is the working directory."""
    generator = np.random.default_rng(0)
    for i in range(40):
        path = tmp_path / "photos" / ("ant", "bee")[i % 2] / f"{i}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(generator.integers(0, 256, (200, 300, 3), dtype=np.uint8)).save(path)
    (tmp_path / "photos/bee/3.jpg").write_text("no image")
    monkeypatch.chdir(tmp_path)
    return Path("photos")


@pytest.mark.parametrize("cuda", [True, False])
def test_the_file_is_written_for_the_machine_and_what_comes_next_is_told(photos, cuda, monkeypatch):
    monkeypatch.setattr(new, "this_machine", lambda: GPU if cuda else CPU)
    said = "\n".join(write_study("birds", photos, Path("birds.yaml"), None, None))
    study = parse_study(yaml.safe_load(Path("birds.yaml").read_text()), "birds.yaml")
    assert set(study.teachers) == {"resnet50" if cuda else "resnet10-w16"}
    plan = Plan(study)
    assert plan.left_out == ""
    assert plan.path("report.html") == "results/birds/report.html"
    assert "cannot be read: photos/bee/3.jpg" in said
    assert "snakemake --cores all --configfile birds.yaml" in said
    assert "bingo summary results/birds" in said


def test_a_file_that_exists_is_left_as_it_is(photos):
    Path("birds.yaml").write_text("mine")
    with pytest.raises(BingoError, match=r"^birds\.yaml: exists already"):
        write_study("birds", photos, Path("birds.yaml"), None, None)
    assert Path("birds.yaml").read_text() == "mine"


def test_a_teacher_that_is_none_is_refused_before_anything_is_written(photos):
    Path("x.pt").write_text("no checkpoint")
    with pytest.raises(BingoError, match=r"x\.pt"):
        write_study("birds", photos, Path("birds.yaml"), None, Path("x.pt"))
    assert not Path("birds.yaml").exists()


@pytest.mark.parametrize("name", ["no", "on", "123", "null"])
def test_names_that_yaml_takes_for_something_else_are_quoted(name):
    text = study_text(name, Path("photos"), Path("x.yaml"), PHOTOS, GPU, "full", None)
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
