"""Commands and Python code of the README and of docs/ run as they stand there, all on one small study.

A block whose fence has a title does not run here: the title tells the reader why.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from bingo.data.arrays import load_arrays

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "docs/getting-started.md", ROOT / "docs/own-data.md"]
PAGES += sorted(set(ROOT.glob("docs/*.md")) - set(PAGES))
CLASSES = {0: "robin", 1: "sparrow", 7: "wren"}
IMAGES_PER_CLASS = 16

pytestmark = pytest.mark.slow


def runnable_blocks(page: Path) -> list[tuple[str, str]]:
    return re.findall(r"^```(bash|python)\n(.*?)^```$", page.read_text(), re.DOTALL | re.MULTILINE)


def run_blocks(page: Path, folder: Path) -> None:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    for language, block in runnable_blocks(page):
        command = ["bash", "-euo", "pipefail", "-c"] if language == "bash" else ["python", "-c"]
        result = subprocess.run(
            [*command, block],
            cwd=folder,
            env={**os.environ, "PATH": path, "OMP_WAIT_POLICY": "passive"},  # other tests use the cores too
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert result.returncode == 0, f"{block}\n{result.stdout}"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A checkout with a folder of photos in it."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in ("Snakefile", "workflow", "profiles", "config", "envs"):
        (folder / name).symlink_to(ROOT / name)
    (folder / ".venv").symlink_to(sys.prefix)
    images, labels = load_arrays("demo", Path(), "train")
    for label, name in CLASSES.items():
        (folder / "photos" / name).mkdir(parents=True)
        for i, image in enumerate(images[labels == label][:IMAGES_PER_CLASS], start=1):
            Image.fromarray(image.squeeze()).resize((48, 48)).save(folder / "photos" / name / f"{i:03}.jpg")
    return folder


@pytest.mark.parametrize("page", list(filter(runnable_blocks, PAGES)), ids=lambda page: page.stem)
def test_blocks_of_a_page_run(page, folder):
    if page != PAGES[0] and not (folder / "results/birds/report.html").exists():
        run_blocks(PAGES[0], folder)
    run_blocks(page, folder)
