import numpy as np
import pytest
from PIL import Image

from bingo.data import survey as survey_module
from bingo.data.survey import printable, survey
from bingo.errors import BingoError

GREY, COLOURED = np.full((30, 40), 51, np.uint8), np.full((30, 40, 3), (255, 0, 51), np.uint8)


@pytest.fixture
def save(tmp_path):
    """Write equal images under names below a folder."""

    def saved(pixels, *names, mode="RGB", **options):
        for name in names:
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).convert(mode).save(path, **options)
        return tmp_path

    return saved


def numbered(folder, count):
    return [f"{folder}/{i}.png" for i in range(count)]


def test_class_folders_are_labels(save):
    found = survey(save(COLOURED, *numbered("bee", 2), *numbered("ant", 3)), 1)
    assert found.classes == ["ant", "bee"]
    assert found.unlabelled == ""
    assert found.names == [*numbered("ant", 3), *numbered("bee", 2)]
    assert (found.val, found.validation, found.unreadable, found.decoded) == (None, [], {}, 5)


@pytest.mark.parametrize(
    "names", [["0.png", "1.png"], ["ant/0.png", "bee/0.png", "stray.png"], ["images/0.png", "images/1.png"]]
)
def test_folders_that_are_no_labels_are_not_taken_for_labels(save, names):
    found = survey(save(COLOURED, *names), 1)
    assert found.classes == []
    assert found.unlabelled


@pytest.mark.parametrize("name", ["val", "valid", "validation", "test", "Val"])
def test_a_folder_beside_train_validates(save, name, tmp_path):
    save(COLOURED, *numbered("train/ant", 2), *numbered("train/bee", 2), *numbered(f"{name}/bee", 3))
    found = survey(tmp_path, 1)
    assert (found.train, found.val) == (tmp_path / "train", tmp_path / name)
    assert (found.names, found.validation) == ([*numbered("ant", 2), *numbered("bee", 2)], numbered("bee", 3))


def test_grey_images_are_told_by_their_pixels_however_they_are_stored(save):
    folder = save(GREY, *numbered("ant", 60), mode="L")
    save(GREY, *(f"bee/{i}.jpg" for i in range(60)), mode="RGB")
    found = survey(folder, 1)
    assert found.grey
    assert found.mean == pytest.approx(0.2, abs=0.005)
    assert found.std == pytest.approx(0, abs=0.005)
    save(COLOURED, "ant/coloured.png")
    assert survey(folder, 1).grey  # one in a hundred is a slip
    save(COLOURED, "ant/another.png")
    assert not survey(folder, 1).grey


def test_of_many_images_a_part_is_decoded_the_same_at_every_time(save, monkeypatch):
    monkeypatch.setattr(survey_module, "SURVEY_DECODED", 4)
    folder = save(COLOURED, *numbered("ant", 9))
    decoded, decode = [], survey_module.decode
    monkeypatch.setattr(survey_module, "decode", lambda content: decoded.append(content) or decode(content))
    assert survey(folder, 1).decoded == 4
    assert len(decoded) == 4
    (folder / "ant" / "text.png").write_text("no image")  # what has no header is found among all
    assert len(survey(folder, 1).unreadable) == 1


def test_a_class_may_be_called_train(save, tmp_path):
    found = survey(save(COLOURED, "bus/0.png", "train/0.png", "val/0.png"), 1)
    assert (found.train, found.val, found.classes) == (tmp_path, None, ["bus", "train", "val"])


@pytest.mark.parametrize(
    ("name", "shown"), [("a b\u00e9.png", "a b\u00e9.png"), ("a\nb.png", "a\\nb.png"), ("\udcff", "\\xff")]
)
def test_names_of_files_are_one_line_of_text(name, shown):
    assert printable(name) == shown


@pytest.mark.parametrize(
    ("other", "val", "unused"), [("test/ant/1.png", "val", "test"), ("val/wasp/0.png", None, "val")]
)
def test_a_second_folder_or_one_of_other_classes_does_not_validate(save, other, val, unused, tmp_path):
    names = ["train/ant/0.png", "train/bee/0.png", other]
    found = survey(save(COLOURED, *names, *(["val/ant/0.png"] if val else [])), 1)
    assert found.val == (val and tmp_path / val)
    (reason,) = found.unused
    assert reason.startswith(str(tmp_path / unused))


def test_sides_mean_and_deviation_are_those_of_all_images(save):
    folder = save(COLOURED, "0.png")
    assert survey(folder, 1).mean == pytest.approx(np.mean([1, 0, 0.2]))
    assert survey(folder, 1).std == pytest.approx(np.std([1, 0, 0.2]))
    for i, size in enumerate([(100, 20), (80, 90)], 1):
        save(np.zeros((*size, 3), np.uint8), f"{i}.png")
    assert survey(folder, 1).sides == (20, 30, 80)


def test_files_that_cannot_be_read_are_named(save, tmp_path):
    save(COLOURED, *numbered("ant", 3), "bee/0.jpg")
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    cut = save(noise, "bee/cut.jpg") / "bee" / "cut.jpg"
    cut.write_bytes(cut.read_bytes()[:900])
    (tmp_path / "ant" / "text.png").write_text("no image")
    (tmp_path / "ant" / "empty.jpg").write_bytes(b"")
    found = survey(tmp_path, 2)
    assert set(found.unreadable) == {str(tmp_path / name) for name in ("bee/cut.jpg", "ant/text.png", "ant/empty.jpg")}
    assert found.decoded == 4


@pytest.mark.parametrize("name", ["0.png", "notes.txt"])
def test_a_folder_without_an_image_that_can_be_read_is_refused(name, tmp_path):
    (tmp_path / name).write_text("no image")
    with pytest.raises(BingoError, match=rf"^--data: .*{tmp_path}"):
        survey(tmp_path, 1)
