from pathlib import Path

import pytest

from bingo.errors import BingoError
from bingo.export.files import new_folder


def test_a_folder_appears_whole_and_without_what_a_killed_export_left(tmp_path):
    path = tmp_path / "exports" / "folder"
    (tmp_path / "exports" / ".folder.tmp").mkdir(parents=True)
    (tmp_path / "exports" / ".folder.tmp" / "old").touch()
    with new_folder(path) as folder:
        (folder / "a").write_text("a")
        assert not path.exists()
    assert [entry.name for entry in path.parent.rglob("*")] == ["folder", "a"]


def test_of_a_folder_that_fails_nothing_is_left(tmp_path):
    with pytest.raises(ZeroDivisionError), new_folder(tmp_path / "folder") as folder:
        (folder / "a").write_text(str(1 / 0))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("path", [".", "/", None])
def test_a_folder_that_exists_is_refused(path, tmp_path):
    path = tmp_path if path is None else Path(path)
    with pytest.raises(BingoError, match=f"^{path}: "), new_folder(path):
        raise AssertionError
