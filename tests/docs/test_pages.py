"""What the documents name exists in this repository."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(ROOT.glob("docs/*.md"))]
FOLDERS = "benchmarks|bingo|config|docs|envs|tests|workflow"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_paths_that_a_page_names_exist(page):
    text = page.read_text()
    paths = set(re.findall(rf"`((?:{FOLDERS})/[\w./-]*)`", text))
    if "| file in `bingo/` |" in text:
        paths |= {f"bingo/{path}" for path in re.findall(r"^\| `([\w/]+\.py)` \|", text, re.MULTILINE)}
    assert {path for path in paths if not (ROOT / path).exists()} == set()


def test_links_of_the_readme_and_of_contributing_lead_to_files():
    for page in PAGES[:2]:
        links = re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text())
        assert {link for link in links if not (ROOT / link).exists()} == set()


def test_messages_of_the_troubleshooting_page_are_those_of_the_code():
    code = "".join(path.read_text() for path in ROOT.glob("bingo/**/*.py"))
    code += (ROOT / "Makefile").read_text() + (ROOT / "workflow/rules/common.smk").read_text()
    code = re.sub(r'"\s*\n\s*f?"', "", code)  # a message may go on in the next line
    symptoms = re.findall(r"^\| `([^`]+)`", (ROOT / "docs/troubleshooting.md").read_text(), re.MULTILINE)
    assert len(symptoms) > 20
    assert {symptom for symptom in symptoms if symptom not in code} == set()
