"""A finished study: what its tables hold, and what is rerun when one key changes."""

import json
import os

import pandas as pd
import pytest

from bingo.study.plan import Plan
from bingo.study.schema import parse_study

from .conftest import Workspace, tiny_study

MODELS = ("big", "distilled")
END = {"table:main", "table_text:main", "accuracy_figure:main", "training_figure", "report"}
FROM_RESULTS = END - {"training_figure"}
EVALUATE_ALL = {f"evaluation:{model}:0:knn-10" for model in MODELS}
ALL_MAPS = {f"map_figure:{model}" for model in MODELS}
FROM_STUDENT = {"student:distilled:0", "map_figure:distilled", "evaluation:distilled:0:knn-10", *END}
FROM_BAGS = {"bags:knn", "sheets:knn", "ranked_sheets:knn", "similarity_figure:knn", *FROM_STUDENT}
FROM_EMBEDDINGS = {"embeddings:big", "purity_figure:big", *FROM_BAGS}
FROM_TEACHER = {"teacher:big", "map_figure:big", "evaluation:big:0:knn-10", *FROM_EMBEDDINGS}
SHARDED = ("--set-scatter", "embeddings=2", "bags=3")


def small_study():
    study = tiny_study()
    del study["students"]["alone"]
    return study


def changed(*path_and_value):
    """Return the study with another value at a key."""
    *folders, key, value = path_and_value
    study = section = small_study()
    for folder in folders:
        section = section[folder]
    section[key] = value
    return study


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Workspace:
    workspace = Workspace(tmp_path_factory.mktemp("finished"))
    workspace.write(small_study())
    workspace.finish()
    return workspace


def test_the_table_holds_what_the_result_files_hold(finished):
    results = finished.folder / "results/tiny"
    table = pd.read_csv(results / "tables/main.csv").fillna({"student": ""})
    assert len(table) == 2 * 2  # networks; top-1 and top-5
    for row in table.itertuples():
        model = row.student or row.teacher
        result = json.loads((results / f"evaluation/{model}/seed-0/{row.protocol}.json").read_text())
        assert result["metrics"][row.metric] == pytest.approx(row.mean, abs=1e-3)


def test_every_figure_sheet_text_and_benchmark_is_made(finished):
    figures = [f"figures/{name}.{suffix}" for name in ("accuracy-main", "training", "purity-big", "similarity-knn",
               *(f"map-{model}" for model in MODELS)) for suffix in ("svg", "png")]  # fmt: skip
    sheets = ["bags/knn.png", *(f"figures/{page}-knn.png" for page in ("more", "best", "worst"))]
    costs = Plan(parse_study(small_study(), "tiny")).benchmarks()
    files = [f"results/tiny/{path}" for path in (*figures, *sheets, "tables/main.md", "tables/main.tex", "report.html")]
    for path in (*files, *(path for paths in costs.values() for path in paths)):
        assert (finished.folder / path).stat().st_size > 0, path


def test_a_touched_input_reruns_nothing(finished):
    finished.write(changed("data", "workers", 2))  # nor does a key that cannot change a result
    listing = finished.folder / "results/tiny/data/train-listing.h5"
    before = listing.stat()
    listing.touch()
    assert finished.planned() == set()
    os.utime(listing, ns=(before.st_atime_ns, before.st_mtime_ns))  # other tests look at the same study


def only_slow(*case):
    return pytest.param(*case, marks=pytest.mark.slow)


@pytest.mark.parametrize(
    ("study", "jobs"),
    [
        (changed("teachers", "big", "training", {**tiny_study()["teachers"]["big"]["training"], "lr": 0.01}),
         FROM_TEACHER),
        only_slow(changed("bags", "knn", "size", 4), FROM_BAGS),
        only_slow(changed("students", "distilled", "temperature", 0.3), FROM_STUDENT),
        only_slow(changed("students", "second", tiny_study()["students"]["distilled"]),
                  {"student:second:0", "map_figure:second", "evaluation:second:0:knn-10", *END}),
        only_slow(changed("evaluations", ["knn-20"]),
                  {*(f"evaluation:{model}:0:knn-20" for model in MODELS), *FROM_RESULTS}),
        only_slow(changed("data", "max_val", 50), {"data:val", *ALL_MAPS, *EVALUATE_ALL, *FROM_RESULTS}),
        only_slow(changed("seeds", [0, 1]),
                  {"student:distilled:1", "evaluation:distilled:1:knn-10", *END}),
        only_slow(changed("tables", "main", "title", "Another title"), {"table_text:main", "report"}),
        only_slow(changed("data", "preprocessing", {"size": 28, "resize": 32}),
                  {*FROM_EMBEDDINGS, *ALL_MAPS, *EVALUATE_ALL}),
        only_slow(changed("data", "preprocessing", {"size": 24, "resize": 28}),
                  {*FROM_TEACHER, *ALL_MAPS, *EVALUATE_ALL}),
    ],
    ids=["teacher-lr", "bag-size", "temperature", "second-student", "protocol", "max-val", "seeds", "title", "resize",
         "size"],
)  # fmt: skip
def test_a_changed_key_reruns_exactly_what_depends_on_it(finished, study, jobs):
    finished.write(study)
    assert finished.planned() == jobs


def test_other_settings_are_computed_in_as_many_shards_as_asked_for_and_clusters_in_one_job(finished):
    study = changed("data", "preprocessing", {"size": 28, "resize": 32})
    study["bags"]["clusters"] = {"criterion": "kmeans", "teacher": "big", "clusters": 5}
    finished.write(study)
    targets = [f"results/tiny/{name}.h5" for name in ("embeddings/big", "bags/knn", "bags/clusters")]
    jobs = {"embeddings:big", "bags:knn", "bags:clusters"}
    planned = finished.planned(*SHARDED, "--", *targets)
    assert sorted(job.rpartition(":")[0] for job in planned - jobs) == [
        *(f"bags_shard:knn:{number}-of-3" for number in (1, 2, 3)),
        *(f"embeddings_shard:big:{number}-of-2" for number in (1, 2)),
    ]
    assert jobs <= planned


@pytest.mark.slow
def test_shards_change_no_byte_and_their_number_reruns_nothing(finished):
    finished.write(small_study())
    targets = ("results/tiny/embeddings/big.h5", "results/tiny/bags/knn.h5")
    before = [(finished.folder / path).read_bytes() for path in targets]
    for path in targets:
        (finished.folder / path).unlink()
    output = finished.finish(*SHARDED, "--", *targets)
    assert [output.count(f"rule {job}:") for job in ("embeddings_shard", "bags_shard")] == [2, 3]
    assert [(finished.folder / path).read_bytes() for path in targets] == before
    assert not list((finished.folder / "results/tiny").glob("*/shards/*.h5"))
    for scatter in ((), ("--set-scatter", "embeddings=5", "bags=2")):
        assert finished.planned(*scatter) == set()


@pytest.mark.slow
def test_a_deleted_result_rebuilds_what_depends_on_it_to_the_same_bytes(finished):
    finished.write(small_study())
    results = finished.folder / "results/tiny"
    result, table = results / "evaluation/distilled/seed-0/knn-10.json", results / "tables/main.csv"
    before = result.read_bytes(), table.read_bytes()
    result.unlink()
    assert finished.planned() == {"evaluation:distilled:0:knn-10", *FROM_RESULTS}
    finished.finish("tables")
    assert (result.read_bytes(), table.read_bytes()) == before
    # A table of the same bytes gives Snakemake no reason to draw and report it again.
    assert finished.planned() <= {"accuracy_figure:main", "report"}
    finished.finish()
    assert finished.planned() == set()
