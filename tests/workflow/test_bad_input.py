"""Bad input as a user meets it: one clear line, exit code 1, no traceback, nothing under a final name."""

import subprocess
import sys

import h5py
import numpy as np
import pytest
import torch
from torchvision.io import write_jpeg

from .conftest import ROOT, tiny_study


def refused(result, *words):
    """Assert that a run ended with one line of ours that holds ``words``."""
    lines = [line for line in result.stdout.splitlines() if line.startswith("bingo: error: ")]
    assert result.returncode == 1, result.stdout
    assert "Traceback" not in result.stdout
    assert len(lines) == 1, result.stdout
    for word in words:
        assert word in lines[0]


def bingo(workspace, *arguments):
    return subprocess.run(
        [sys.executable, "-m", "bingo", *arguments],
        cwd=workspace.folder,
        env={**workspace.environment(), "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    ("section", "value", "words"),
    [
        ("data", {"source": "folder", "train": "nowhere"}, ["data.train", "nowhere"]),
        ("data", {"source": "folder", "train": "empty"}, ["data.train", "empty"]),
        ("sudy", "x", ["unknown key 'sudy'", "did you mean 'study'?"]),
    ],
)
def test_a_fault_in_the_study_stops_snakemake_before_any_job(workspace, section, value, words):
    (workspace.folder / "empty").mkdir()
    workspace.write({**tiny_study(), section: value})
    refused(workspace.run("--dry-run"), *words)
    assert not (workspace.folder / "results").exists()


def folder_study(**data):
    study = tiny_study()
    study["data"] = {"source": "folder", "train": "photos", "preprocessing": {"size": 24, "resize": 24}, **data}
    for entry in (study["teachers"]["big"], *study["students"].values()):
        entry["training"] = {"epochs": 1, "batch_size": 8, "views": "small"}
    return study


def write_photos(folder, count, seed=0):
    folder.mkdir(parents=True)
    generator = torch.Generator().manual_seed(seed)
    for i in range(count):
        pixels = torch.randint(0, 256, (3, 30 + i % 3, 40), dtype=torch.uint8, generator=generator)
        write_jpeg(pixels, str(folder / f"{i:03}.jpg"))


def test_an_unreadable_image_is_named_or_left_out_as_the_study_says(workspace):
    write_photos(workspace.folder / "photos", 12)
    (workspace.folder / "photos/005.jpg").write_bytes(b"no image")
    workspace.write(folder_study())
    result = workspace.run("results/tiny/data/listing.h5")
    refused(result, "photos/005.jpg", "on_bad_image")
    assert not (workspace.folder / "results/tiny/data/listing.h5").exists()

    workspace.write(folder_study(on_bad_image="skip"))
    assert workspace.run("results/tiny/data/listing.h5").returncode == 0
    with h5py.File(workspace.folder / "results/tiny/data/listing.h5") as file:
        assert len(file["train/label"]) == 11
        assert '"unreadable": 1' in file.attrs["provenance"]
    assert "1 unreadable" in (workspace.folder / "logs/tiny/data.log").read_text()


def test_a_diverging_loss_stops_at_the_step_and_keeps_the_last_good_state(workspace):
    study = tiny_study()
    study["teachers"]["big"]["training"] = {"epochs": 4, "batch_size": 16, "views": "small", "lr": 1.0e38}
    workspace.write(study)
    refused(workspace.run("results/tiny/teachers/big.safetensors"), "not finite at step", "learning rate")
    assert not (workspace.folder / "results/tiny/teachers/big.safetensors").exists()


@pytest.mark.xdist_group("finished")
class TestArtifacts:
    """Each stage on inputs that are damaged or belong elsewhere."""

    results = "results/tiny"

    def bags(self, workspace, embeddings, size=3, output="out.h5"):
        settings = f'{{"version": 1, "bags": {{"criterion": "knn", "teacher": "big", "size": {size}}}}}'
        listing, teacher = f"{self.results}/data/listing.h5", f"{self.results}/teachers/big.safetensors"
        return bingo(
            workspace,
            *("bags", "--settings", settings, "--listing", listing, "--teacher", teacher),
            *("--embeddings", str(embeddings), "--output", output),
        )

    def test_truncated_hdf5(self, finished, tmp_path):
        content = (finished.folder / self.results / "embeddings/big.h5").read_bytes()
        (tmp_path / "cut.h5").write_bytes(content[: len(content) // 2])
        refused(self.bags(finished, tmp_path / "cut.h5"), "cut.h5", "truncated or damaged")
        assert not (finished.folder / "out.h5").exists()

    @pytest.mark.parametrize("what", ["dataset", "teacher"])
    def test_embeddings_of_another_dataset_or_teacher(self, finished, tmp_path, what):
        other = tmp_path / "other.h5"
        other.write_bytes((finished.folder / self.results / "embeddings/big.h5").read_bytes())
        with h5py.File(other, "a") as file:
            file.attrs[f"{what}_digest"] = "0" * 64
        refused(self.bags(finished, other), "other.h5", f"another {what}")

    def test_bag_size_beyond_the_number_of_images(self, finished):
        embeddings = f"{self.results}/embeddings/big.h5"
        refused(self.bags(finished, embeddings, size=96), "size 96", "96")
        assert not (finished.folder / "out.h5").exists()

    @pytest.mark.parametrize("what", ["dataset", "teacher"])
    def test_bags_of_another_dataset_or_teacher(self, finished, tmp_path, what):
        other = tmp_path / "other.h5"
        other.write_bytes((finished.folder / self.results / "bags/knn.h5").read_bytes())
        with h5py.File(other, "a") as file:
            file.attrs[f"{what}_digest"] = "0" * 64
        result = bingo(
            finished,
            *("student", "--name", "x", "--settings", student_settings(), "--bags", str(other)),
            *("--listing", f"{self.results}/data/listing.h5", "--output", str(tmp_path / "out")),
            *("--teacher", f"{self.results}/teachers/big.safetensors"),
        )
        refused(result, "other.h5", f"another {what}")
        assert not (tmp_path / "out/backbone.safetensors").exists()

    def test_rows_that_were_tampered_with(self, finished, tmp_path):
        other = tmp_path / "other.h5"
        other.write_bytes((finished.folder / self.results / "embeddings/big.h5").read_bytes())
        with h5py.File(other, "a") as file:
            file["index"][:] = np.arange(96)[::-1]
        refused(self.bags(finished, other), "other.h5")


def student_settings():
    from bingo import jobs
    from bingo.config import parse_study

    return jobs.student_settings(parse_study(tiny_study(), "tiny"), "distilled", 0)
