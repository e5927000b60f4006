"""Files of the project that must agree."""

import re
import tomllib
from pathlib import Path

import pandas as pd
import pytest
import yaml

from bingo.report.table import read_table
from bingo.study.schema import parse_study
from bingo.study.stages import JOBS
from workflow.scripts import make_config_docs, make_study_page

ROOT = Path(__file__).parents[1]


def test_conda_environment_and_pyproject_pin_the_same_versions():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    environment = yaml.safe_load((ROOT / "envs/bingo.yaml").read_text())
    pip = next(entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict))
    needed = project["dependencies"] + project["optional-dependencies"]["export"]
    assert sorted(pip) == sorted(needed)
    assert all("==" in requirement for requirement in needed)


def test_config_readme_and_schema_are_those_of_the_model():
    assert (ROOT / "config/README.md").read_text() == make_config_docs.readme(), "run make docs"
    assert (ROOT / "config/schema.json").read_text() == make_config_docs.json_schema(), "run make docs"


@pytest.mark.parametrize("path", sorted((ROOT / "config").glob("*.yaml")), ids=lambda path: path.name)
def test_every_study_file_is_valid(path):
    parse_study(yaml.safe_load(path.read_text()), path.name)


def test_default_profile_is_found_by_snakemake():
    assert (ROOT / "profiles/default/config.yaml").resolve() == ROOT / "workflow/profiles/default/config.yaml"


def test_every_stage_has_a_module_and_a_rule_that_names_the_environment_and_gets_a_gpu_in_slurm_if_it_uses_one():
    profile = yaml.safe_load((ROOT / "workflow/profiles/slurm/config.yaml").read_text())
    text = "\n".join(path.read_text() for path in (ROOT / "workflow/rules").glob("*.smk"))
    parts = re.split(r"^(?:use rule \w+ as |rule )", text, flags=re.MULTILINE)[1:]
    rules = {re.split(r"\W", rule)[0]: rule for rule in parts}
    modules = {path.stem for path in (ROOT / "bingo/stages").glob("*.py")} - {"__init__"}
    assert modules == JOBS.keys()
    assert JOBS.keys() <= rules.keys()
    for name, rule in rules.items():
        assert "python -m bingo" not in rule or '"../../envs/bingo.yaml"' in rule, name
    asking = {name for name, rule in rules.items() if re.search(r"resources:(.|\n)*?\bGPU\b", rule)}
    assert asking == {name for name, resources in profile["set-resources"].items() if resources["gpu"]}


def test_the_studys_page_and_readme_have_the_tables_that_lie_beside_it():
    for path in (make_study_page.PAGE, make_study_page.README):
        page = path.read_text()
        assert make_study_page.filled(page) == page, "run python workflow/scripts/make_study_page.py"


def test_the_studys_tables_are_made_of_every_seed():
    seeds = pd.read_csv(make_study_page.FOLDER / "seeds.csv")
    table = read_table(make_study_page.FOLDER / "methods.csv")
    for row in table.itertuples():
        model = row.student or row.teacher
        chosen = (seeds["model"] == model) & (seeds["protocol"] == row.protocol) & (seeds["metric"] == row.metric)
        values = seeds[chosen & (seeds["study"] == "fashion-mnist")]["value"]
        assert len(values) == row.seeds
        assert row.mean == pytest.approx(values.mean(), abs=1e-4)
        assert row.std == pytest.approx(values.std(), abs=1e-4, nan_ok=True)
