"""A finished study: what reruns when one key changes, what it refuses, and what its tables hold."""

import copy
import json
import os
import shlex
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest

from bingo.study.bags import KnnBag
from bingo.study.jobs import BagsJob, StudentJob
from bingo.study.plan import Plan
from bingo.study.schema import parse_study

from .conftest import bingo, refused, tiny_study

END = {"table:main", "table_text:main", "accuracy_figure:main", "training_figure", "report"}
PROTOCOLS = ("linear-moco-small", "knn-10")
EVALUATE_DISTILLED = {f"evaluation:distilled:0:{protocol}" for protocol in PROTOCOLS}
EVALUATE_ALL = EVALUATE_DISTILLED | {
    f"evaluation:{model}:0:{protocol}" for model in ("big", "alone") for protocol in PROTOCOLS
}
FROM_STUDENT = {"student:distilled:0", "map_figure:distilled", *EVALUATE_DISTILLED, *END}
FROM_BAGS = {"bags:knn", "sheets:knn", "ranked_sheets:knn", "similarity_figure:knn", *FROM_STUDENT}
FROM_EMBEDDINGS = {"embeddings:big", "purity_figure:big", *FROM_BAGS}
FROM_TEACHER = {
    "teacher:big",
    "map_figure:big",
    "evaluation:big:0:linear-moco-small",
    "evaluation:big:0:knn-10",
    *FROM_EMBEDDINGS,
}
ALL_MAPS = {f"map_figure:{model}" for model in ("big", "alone", "distilled")}


def teacher_lr(study):
    study["teachers"]["big"]["training"] = {**study["teachers"]["big"]["training"], "lr": 0.01}


def bag_size(study):
    study["bags"]["knn"]["size"] = 4


def student_lr(study):
    study["students"]["distilled"]["training"] = {**study["students"]["distilled"]["training"], "lr": 0.01}


def second_student(study):
    study["students"]["distilled-2"] = copy.deepcopy(study["students"]["distilled"])


def evaluation_k(study):
    study["evaluations"][1] = "knn-20"


def workers(study):
    study["data"]["workers"] = 2


def table_title(study):
    study["tables"]["main"]["title"] = "Another title"


def image_size(study):
    study["data"]["preprocessing"] = {"size": 24, "resize": 28}


def evaluation_resize(study):
    study["data"]["preprocessing"] = {"size": 28, "resize": 32}


def fewer_validation_images(study):
    study["data"]["max_val"] = 50


def second_seed(study):
    study["seeds"] = [0, 1]


def nothing(study):
    pass


@pytest.mark.parametrize(
    ("change", "jobs"),
    [
        (nothing, set()),
        (teacher_lr, FROM_TEACHER),
        (bag_size, FROM_BAGS),
        (student_lr, FROM_STUDENT),
        (
            second_student,
            {
                "student:distilled-2:0",
                "map_figure:distilled-2",
                "evaluation:distilled-2:0:linear-moco-small",
                "evaluation:distilled-2:0:knn-10",
                *END,
            },
        ),
        (
            evaluation_k,
            {
                *(f"evaluation:{model}:0:knn-20" for model in ("big", "alone", "distilled")),
                *(END - {"training_figure"}),
            },
        ),
        (fewer_validation_images, {"data:val", *ALL_MAPS, *EVALUATE_ALL, *(END - {"training_figure"})}),
        (
            second_seed,
            {
                *(f"student:{student}:1" for student in ("alone", "distilled")),
                *(f"evaluation:{student}:1:{protocol}" for student in ("alone", "distilled") for protocol in PROTOCOLS),
                *END,
            },
        ),
        (workers, set()),
        (table_title, {"table_text:main", "report"}),
        (evaluation_resize, {*FROM_EMBEDDINGS, *ALL_MAPS, *EVALUATE_ALL}),
        (image_size, {*FROM_TEACHER, "student:alone:0", *ALL_MAPS, *EVALUATE_ALL}),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_a_changed_key_reruns_exactly_what_depends_on_it(finished, change, jobs):
    study = tiny_study()
    change(study)
    finished.write(study)
    assert finished.planned() == jobs


def test_a_touched_input_reruns_nothing(finished):
    finished.write(tiny_study())
    listing = finished.folder / "results/tiny/data/train-listing.h5"
    before = listing.stat()
    listing.touch()
    assert finished.planned() == set()
    os.utime(listing, ns=(before.st_atime_ns, before.st_mtime_ns))  # other tests look at the same study


def test_a_deleted_result_rebuilds_what_depends_on_it_and_the_same_bytes(finished):
    finished.write(tiny_study())
    results = finished.folder / "results/tiny"
    result, table = results / "evaluation/distilled/seed-0/knn-10.json", results / "tables/main.csv"
    before = result.read_bytes(), table.read_bytes()
    result.unlink()
    dependents = {"table:main", "table_text:main", "accuracy_figure:main", "report"}
    assert finished.planned() == {"evaluation:distilled:0:knn-10", *dependents}
    # Tables alone: neither figures nor the report.
    run = finished.run("tables")
    assert run.returncode == 0, run.stdout
    assert (result.read_bytes(), table.read_bytes()) == before
    # A table of the same bytes gives Snakemake no reason to draw and report it again.
    assert finished.planned() <= {"accuracy_figure:main", "report"}
    assert finished.run().returncode == 0
    assert finished.planned() == set()


class TestArtifacts:
    """Each stage on inputs that are damaged or belong elsewhere."""

    results = "results/tiny"

    def run(self, workspace, job):
        """Call a job's stage as its rule does."""
        options = shlex.split(job.flags(*job.roles()))
        return bingo(workspace, "stage", job.STAGE, "--settings", job.identity, *options)

    def bags(self, workspace, embeddings, size=3, output="out.h5"):
        job = BagsJob(
            bags=KnnBag(criterion="knn", teacher="big", size=size),
            listing=Path(f"{self.results}/data/train-listing.h5"),
            teacher=Path(f"{self.results}/teachers/big.safetensors"),
            embeddings=Path(embeddings),
            output=Path(output),
        )
        return self.run(workspace, job)

    def of_another(self, finished, what, artifact, folder):
        """Copy an artifact and say in the copy that it belongs to another dataset or teacher."""
        other = folder / "other.h5"
        other.write_bytes((finished.folder / self.results / artifact).read_bytes())
        with h5py.File(other, "a") as file:
            file.attrs[f"{what}_digest"] = "0" * 64
        return other

    def test_truncated_hdf5(self, finished, tmp_path):
        content = (finished.folder / self.results / "embeddings/big.h5").read_bytes()
        (tmp_path / "cut.h5").write_bytes(content[: len(content) // 2])
        refused(self.bags(finished, tmp_path / "cut.h5"), "cut.h5", "truncated or damaged")
        assert not (finished.folder / "out.h5").exists()

    @pytest.mark.parametrize("what", ["dataset", "teacher"])
    def test_embeddings_of_another_dataset_or_teacher(self, finished, tmp_path, what):
        other = self.of_another(finished, what, "embeddings/big.h5", tmp_path)
        refused(self.bags(finished, other), "other.h5", f"another {what}")

    def test_bag_size_beyond_the_number_of_images(self, finished):
        embeddings = f"{self.results}/embeddings/big.h5"
        refused(self.bags(finished, embeddings, size=96), "size 96", "96")
        assert not (finished.folder / "out.h5").exists()

    @pytest.mark.parametrize("what", ["dataset", "teacher"])
    def test_bags_of_another_dataset_or_teacher(self, finished, tmp_path, what):
        other = self.of_another(finished, what, "bags/knn.h5", tmp_path)
        job = StudentJob.of(Plan(parse_study(tiny_study(), "tiny")), "distilled", 0)
        result = self.run(finished, job.model_copy(update={"bags": other, "output": tmp_path / "out"}))
        refused(result, "other.h5", f"another {what}")
        assert not (tmp_path / "out/backbone.safetensors").exists()

    def test_rows_that_were_tampered_with(self, finished, tmp_path):
        other = tmp_path / "other.h5"
        other.write_bytes((finished.folder / self.results / "embeddings/big.h5").read_bytes())
        with h5py.File(other, "a") as file:
            file["index"][:] = np.arange(96)[::-1]
        refused(self.bags(finished, other), "other.h5")


def test_the_table_holds_what_the_result_files_hold(finished):
    results = finished.folder / "results/tiny"
    table = pd.read_csv(results / "tables/main.csv").fillna({"student": ""})
    assert len(table) == 3 * 2 * 2  # networks, protocols, top-1 and top-5
    for row in table.itertuples():
        model = row.student or row.teacher
        result = json.loads((results / f"evaluation/{model}/seed-0/{row.protocol}.json").read_text())
        assert result["metrics"][row.metric] == pytest.approx(row.mean, abs=1e-3)
