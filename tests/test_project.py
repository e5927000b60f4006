"""Files of the project that must say the same thing."""

import re
import tomllib
from pathlib import Path

import pandas as pd
import pytest
import yaml

from bingo.report.table import read_table
from bingo.study.schema import parse_study, study_schema
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


def test_every_rule_that_runs_bingo_names_the_environment():
    for path in (ROOT / "workflow/rules").glob("*.smk"):
        for rule in re.split(r"\n(?=rule )", path.read_text()):
            if "python -m bingo" in rule:
                assert '"../../envs/bingo.yaml"' in rule, f"{path.name}: {rule.splitlines()[0]}"


def test_config_readme_and_schema_are_those_of_the_model():
    assert (ROOT / "config/README.md").read_text() == make_config_docs.readme(), "run make docs"
    assert (ROOT / "config/schema.json").read_text() == make_config_docs.json_schema(), "run make docs"


@pytest.mark.parametrize("path", sorted((ROOT / "config").glob("*.yaml")), ids=lambda path: path.name)
def test_every_study_file_is_valid(path):
    parse_study(yaml.safe_load(path.read_text()), path.name)


def test_readme_shows_every_key_of_the_model():
    text = (ROOT / "config/README.md").read_text()

    def keys(schema):
        for section in [schema, *schema["$defs"].values()]:
            yield from section.get("properties", {})

    assert {key for key in keys(study_schema()) if f"`{key}`" not in text} == set()


def test_default_profile_is_found_by_snakemake():
    assert (ROOT / "profiles/default/config.yaml").resolve() == ROOT / "workflow/profiles/default/config.yaml"


def test_rules_that_can_use_a_gpu_are_those_that_the_slurm_profile_gives_one():
    profile = yaml.safe_load((ROOT / "workflow/profiles/slurm/config.yaml").read_text())
    rules = "\n".join(path.read_text() for path in (ROOT / "workflow/rules").glob("*.smk"))
    parts = re.split(r"^(?:use rule \w+ as |rule )", rules, flags=re.MULTILINE)
    asking = {re.split(r"\W", rule)[0] for rule in parts if re.search(r"resources:(.|\n)*?\bGPU\b", rule)}
    assert asking == {rule for rule, resources in profile["set-resources"].items() if resources["gpu"]}


def test_every_stage_has_a_rule_and_a_module_of_its_name():
    rules = "\n".join(path.read_text() for path in (ROOT / "workflow/rules").glob("*.smk"))
    modules = {path.stem for path in (ROOT / "bingo/stages").glob("*.py")} - {"__init__"}
    assert modules == JOBS.keys()
    assert JOBS.keys() - set(re.findall(r"^(?:use rule \w+ as |rule )(\w+)", rules, re.MULTILINE)) == set()


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
