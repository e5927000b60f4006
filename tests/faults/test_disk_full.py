"""A full disk: each stage ends in one line that names what it could not write, and runs when there is space again."""

import os
import shutil
import subprocess

import pytest
import torch

from . import study as tiny

pytestmark = pytest.mark.slow

SIZE = 8 * 2**20


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("full") / "study"
    return folder, tiny.finish(folder, 0)


@pytest.fixture
def disk(tmp_path):
    """A disk of 8 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small disk")
    command = ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", folder]
    if subprocess.run(command, check=False).returncode != 0:
        pytest.skip("a small disk cannot be mounted here")
    yield folder
    subprocess.run(["umount", folder], check=True)


def fill(disk, leave):
    """Leave so many bytes of space (in whole pages)."""
    statistics = os.statvfs(disk)
    (disk / "ballast").write_bytes(bytes(max(statistics.f_bavail * statistics.f_frsize - leave, 0)))


# Of each kind of output a stage that writes it; the share of the output's size that there is space for.
STAGES = [
    "data",
    "teacher",
    "embeddings",
    "sheet",
    "online student",
    "big evaluation",
    "table",
    "text",
    "export",
    "report",
]


@pytest.mark.parametrize("share", [0, 0.6])
@pytest.mark.parametrize("name", STAGES)
def test_a_full_disk_is_one_line_and_no_half_file(name, share, finished, disk, tmp_path):
    folder, stages = finished
    stage = stages[name]
    study = tmp_path / "study"
    tiny.link_tree(folder, study)
    for output in stage.outputs:
        (study / output).unlink()
    # What the stage writes lies on the disk; all that it reads does not.
    places = sorted({os.path.dirname(output) for output in stage.outputs})  # noqa: PTH120
    for place in places:
        shutil.copytree(study / place, disk / place)
        shutil.rmtree(study / place)
        (study / place).symlink_to(disk / place)
    argv = [*stage.argv, *(["--log", str(disk / "stage.log")] if name != "export" else [])]
    before = {path.relative_to(disk) for path in disk.rglob("*")}
    size = max((folder / output).stat().st_size for output in stage.outputs)
    fill(disk, int(size * share))
    outcome = tiny.command(argv, study)
    (disk / "ballast").unlink()

    faults = [line for line in outcome.text.splitlines() if line.startswith("bingo: error: ")]
    assert "Traceback" not in outcome.text, outcome.text
    if outcome.code == 0:  # space is counted in pages, and a log that lacks it stops nobody
        assert not faults, outcome.text
        assert share > 0
    else:
        assert outcome.code == 1, outcome.text
        assert len(faults) == 1, outcome.text
        assert any(place in faults[0] for place in places), outcome.text
        assert "No space left" in faults[0], outcome.text
    left = {path.relative_to(disk) for path in disk.rglob("*")} - before
    whole = {path for path in left if str(path) in stage.outputs}
    assert all((disk / path).read_bytes() == (folder / path).read_bytes() for path in whole)
    assert not [path for path in left if ".tmp" in path.name]

    again = tiny.command(argv, study)
    assert again.code == 0, again.text
    for output in stage.outputs:
        assert (study / output).read_bytes() == (folder / output).read_bytes(), output
