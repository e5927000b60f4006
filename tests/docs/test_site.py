"""The documentation site builds, and its links lead somewhere."""

import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.slow


class Page(HTMLParser):
    """A page's links, and the anchors that links can lead to."""

    def __init__(self, path):
        super().__init__()
        self.links, self.anchors = [], set()
        self.feed(path.read_text())

    def handle_starttag(self, _tag, attrs):
        for key, value in attrs:
            if key in ("href", "src"):
                self.links.append(urlsplit(value))
            elif key in ("id", "name"):
                self.anchors.add(value)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The site, built strictly from a copy of what it is made from."""
    folder = tmp_path_factory.mktemp("project")
    for name in ("docs", "bingo", "config"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("zensical.toml", "README.md"):
        shutil.copy(ROOT / name, folder)
    build = subprocess.run(
        [sys.executable, "-m", "zensical", "build", "--strict"],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert build.returncode == 0, build.stdout
    return folder / "site"


def test_every_link_and_anchor_of_the_site_exists(site):
    pages = {path: Page(path) for path in site.rglob("*.html") if path.name != "404.html"}
    assert len(pages) >= len(list(ROOT.glob("docs/**/*.md")))
    broken = []
    for path, page in pages.items():
        for link in page.links:
            if link.scheme or link.netloc:
                continue
            target = (path.parent / unquote(link.path)).resolve() if link.path else path
            target = target / "index.html" if target.is_dir() else target
            if not target.exists() or (
                link.fragment and target in pages and link.fragment not in pages[target].anchors
            ):
                broken.append(f"{path.relative_to(site)}: {link.geturl()}")
    assert broken == []


def test_every_package_of_the_core_has_documented_functions(site):
    for name in ("views", "losses", "methods", "models", "training", "bags", "study"):
        anchors = Page(site / "api" / name / "index.html").anchors
        assert len([anchor for anchor in anchors if anchor.startswith(f"bingo.{name}.")]) > 3
