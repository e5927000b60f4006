"""Bad input as a user meets it: one clear line, exit code 1, no traceback, nothing under a final name."""

import h5py
import pytest

from .conftest import folder_study, refused, tiny_study, write_photos


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


def test_an_unreadable_image_is_named_or_left_out_as_the_study_says(workspace):
    write_photos(workspace.folder / "photos", 12)
    (workspace.folder / "photos/005.jpg").write_bytes(b"no image")
    workspace.write(folder_study())
    result = workspace.run("results/tiny/data/train-listing.h5")
    refused(result, "photos/005.jpg", "on_bad_image")
    assert not (workspace.folder / "results/tiny/data/train-listing.h5").exists()

    workspace.write(folder_study(on_bad_image="skip"))
    assert workspace.run("results/tiny/data/train-listing.h5").returncode == 0
    with h5py.File(workspace.folder / "results/tiny/data/train-listing.h5") as file:
        assert len(file["train/label"]) == 11
        assert '"unreadable": 1' in file.attrs["provenance"]
    assert "1 unreadable" in (workspace.folder / "logs/tiny/data/train.log").read_text()


def test_a_diverging_loss_stops_at_the_step_and_writes_nothing(workspace):
    study = tiny_study()
    study["teachers"]["big"]["training"] = {"epochs": 4, "batch_size": 16, "views": "small", "lr": 1.0e38}
    workspace.write(study)
    result = workspace.run("results/tiny/teachers/big.safetensors")
    refused(result, "teacher big", "not finite at step", "learning rate")
    assert "\nbingo: failed: logs/tiny/teacher/big.log: teacher big: the loss is not finite" in result.stdout
    assert not (workspace.folder / "results/tiny/teachers/big.safetensors").exists()
