from pathlib import Path

import pytest

from bingo.errors import BingoError
from bingo.export.files import new_folder


def test_a_folder_appears_whole(tmp_path):
    path = tmp_path / "exports" / "folder"
    with new_folder(path) as folder:
        (folder / "a").write_text("a")
        assert not path.exists()
    assert [entry.name for entry in path.parent.rglob("*")] == ["folder", "a"]


def test_of_a_folder_that_fails_nothing_is_left(tmp_path):
    with pytest.raises(ZeroDivisionError), new_folder(tmp_path / "folder") as folder:
        (folder / "a").write_text(str(1 / 0))
    assert list(tmp_path.iterdir()) == []


def test_what_an_export_that_was_killed_has_left_is_no_part_of_the_next(tmp_path):
    (tmp_path / ".folder.tmp").mkdir()
    (tmp_path / ".folder.tmp" / "old").touch()
    with new_folder(tmp_path / "folder") as folder:
        (folder / "new").touch()
    assert [path.name for path in tmp_path.rglob("*")] == ["folder", "new"]


@pytest.mark.parametrize("path", [".", "/"])
def test_a_folder_without_a_name_is_refused_too(path):
    with pytest.raises(BingoError, match="exists already"), new_folder(Path(path)):
        raise AssertionError


def test_a_folder_that_exists_is_left_alone(tmp_path):
    (tmp_path / "folder").mkdir()
    with pytest.raises(BingoError, match="folder: exists already; remove it"), new_folder(tmp_path / "folder"):
        raise AssertionError
