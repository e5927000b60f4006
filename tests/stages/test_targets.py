import json
import math
import shutil

import h5py
import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms.v2 import functional as V

from bingo.errors import BingoError
from bingo.models.checkpoint import load_teacher
from bingo.stages import targets as stage
from bingo.study.images import FolderData
from bingo.study.jobs import DataJob, TargetsJob
from bingo.study.method import View
from bingo.training.teacher import StoredTeacher, describe_targets, require_targets
from bingo.views.parameters import draw_for_teacher
from bingo.views.recipes import RECIPES
from tests.stage import run_stage

from .conftest import COUNT

CPU = torch.device("cpu")
ADJUST = (V.adjust_brightness, V.adjust_contrast, V.adjust_saturation, V.adjust_hue)
ALL = [("features", 0), ("features", 1), ("projection", 0), ("projection", 1)]
CHANGES = {"recipe": "paper", "precision": "bfloat16", "layer": "features", "number": 1, "views": 3}


def one_by_one(demo, recipe, view, number, preprocessing):
    """Teacher views of all images, one after the other by torchvision's functions: (N, 3, S, S)."""
    shown = []
    for row in range(len(demo.listing)):
        (image,) = demo.images.fetch(np.array([row]))
        p = draw_for_teacher(RECIPES[recipe], np.array([row]), view, number, demo.listing.size[[row]])
        image = V.resized_crop(image / 255, *p.box[0].tolist(), [preprocessing.size] * 2, antialias=True)
        image = V.horizontal_flip(image) if p.flip[0] else image
        for step in p.order[0].tolist():
            image = ADJUST[step](image, p.factor[0, step].item())
        shown.append(V.normalize(image, preprocessing.mean, preprocessing.std))
    return torch.stack(shown)


def unit(values):
    return values / values.square().sum(1, keepdim=True).sqrt()


def refusal(call, *arguments):
    with pytest.raises(BingoError) as caught:
        call(*arguments)
    message = str(caught.value)
    assert "\n" not in message
    return message


def stored(path):
    with h5py.File(path) as file:
        return file["target"][:].astype(float)


@pytest.mark.parametrize("recipe", ["small", "crop-flip"])
@torch.no_grad()
def test_a_file_holds_the_teachers_outputs_of_every_view_of_every_image(
    recipe, targets_of, demo, teacher, preprocessing
):
    for layer, number in ALL:
        with h5py.File(targets_of(recipe=recipe, views=3, layer=layer, number=number)) as file:
            assert list(file) == ["target"]
            for view in range(3):
                features = teacher.backbone(one_by_one(demo, recipe, view, number, preprocessing))
                values = features if layer == "features" else teacher.head(features)
                assert file["target"].shape == (COUNT, 3, values.shape[1])
                assert file["target"].dtype == np.float16
                np.testing.assert_allclose(file["target"][:, view], unit(values), rtol=2e-3, atol=5e-4)


def test_views_and_numbers_differ_and_the_first_views_do_not_depend_on_how_many_there_are(targets_of):
    for layer, number in ALL:
        many, one = (stored(targets_of(views=views, layer=layer, number=number)) for views in (3, 1))
        np.testing.assert_allclose(many[:, :1], one, atol=1e-3)
    outputs = [values for number in (0, 1) for values in stored(targets_of(views=3, number=number)).swapaxes(0, 1)]
    for i, first in enumerate(outputs):
        for second in outputs[:i]:
            assert (np.abs(first - second).max(1) > 1e-3).mean() > 0.9


def test_for_features_the_head_is_not_computed(targets_of, monkeypatch):
    monkeypatch.setattr(torch.nn.Linear, "forward", lambda *_: pytest.fail("the head was used"))
    assert stored(targets_of(views=1, layer="features", recipe="crop-flip")).shape == (COUNT, 1, 32)


def test_the_file_says_what_it_was_made_of(targets_of, demo, teacher, job_of):
    with h5py.File(targets_of()) as file:
        attributes = dict(file.attrs)
        assert file["target"].fletcher32
        assert file["target"].chunks == (COUNT, 1, 8)  # one view of many images is read at a time
    digest = load_teacher(teacher.path, CPU).digest
    assert (attributes["kind"], attributes["dataset_digest"]) == ("targets", demo.listing.digest)
    assert attributes["teacher_digest"] == digest
    assert json.loads(attributes["drawn"]) == {
        "recipe": "small",
        "precision": "float32",
        "layer": "projection",
        "number": 0,
        "views": 2,
        "preprocessing": {"size": 16, "mean": [0.3, 0.4, 0.5], "std": [0.3, 0.35, 0.4], "decoder": "cpu"},
    }
    assert attributes["drawn"] == describe_targets(job_of(), CPU)
    provenance = json.loads(attributes["provenance"])
    assert (provenance["stage"], provenance["version"]) == ("targets", TargetsJob.STAGE_VERSION)
    assert provenance["device"] == "cpu"
    assert provenance["inputs"] == {"dataset": demo.listing.digest, "teacher": digest}
    assert provenance["settings"] == job_of().settings


def test_equal_inputs_and_any_number_of_workers_give_equal_bytes(job_of, tmp_path, monkeypatch):
    monkeypatch.setattr(stage, "_BATCH", 16)
    for workers in (0, 2):
        stage.run(job_of(output=tmp_path / f"{workers}.h5"), CPU, workers)
    assert (tmp_path / "0.h5").read_bytes() == (tmp_path / "2.h5").read_bytes()


@pytest.mark.parametrize(("batch", "views"), [(1, 8), (5, 2), (COUNT, 1), (COUNT - 1, 3)])
def test_the_batch_changes_no_more_than_rounding(batch, views, targets_of, job_of, tmp_path, monkeypatch):
    monkeypatch.setattr(stage, "_BATCH", batch)
    monkeypatch.setattr(stage, "_VIEWS_PER_READ", views)
    for layer, number in ALL:
        changes = {"views": 3, "layer": layer, "number": number}
        stage.run(job_of(**changes, output=tmp_path / "targets.h5"), CPU, 0)
        np.testing.assert_allclose(stored(tmp_path / "targets.h5"), stored(targets_of(**changes)), atol=1e-3)


def test_another_teacher_other_images_and_other_views_have_other_digests(targets_of, make_teacher, list_demo):
    paths = [
        targets_of(),
        targets_of(teacher=make_teacher(1)),
        targets_of(listing=list_demo(COUNT - 1)),
        targets_of(recipe="crop-flip"),
        *(targets_of(**{key: value}) for key, value in CHANGES.items()),
    ]
    digests = set()
    for path in paths:
        with h5py.File(path) as file:
            digests.add(file.attrs["digest"])
    assert len(digests) == len(paths)


def test_precision_is_that_of_the_settings(targets_of, job_of, tmp_path):
    stage.run(job_of(precision="bfloat16", output=tmp_path / "targets.h5"), CPU, 0)
    with h5py.File(tmp_path / "targets.h5") as half, h5py.File(targets_of()) as single:
        difference = np.abs(half["target"][:].astype(float) - single["target"][:].astype(float))
        assert json.loads(half.attrs["drawn"])["precision"] == "bfloat16"
    assert 1e-3 < difference.max() < 0.1


def test_outputs_that_are_not_finite_name_the_teacher_and_leave_no_file(job_of, make_teacher, tmp_path):
    teacher = make_teacher(0, scale=math.inf)
    message = refusal(stage.run, job_of(teacher=teacher.path, output=tmp_path / "targets.h5"), CPU, 0)
    assert message.startswith(f"{teacher.path}: ")
    assert "not finite" in message
    assert not list(tmp_path.iterdir())


def test_a_teacher_that_cannot_take_images_of_the_size_is_refused_and_leaves_no_file(job_of, transformer, tmp_path):
    message = refusal(stage.run, job_of(teacher=transformer, output=tmp_path / "targets.h5"), CPU, 0)
    assert message.startswith("backbone: cannot take images of 16 px (")
    assert not list(tmp_path.iterdir())


@pytest.fixture
def folder(tmp_path):
    """The path of a listing of nine images of different sizes."""
    draw = np.random.default_rng(0)
    (tmp_path / "photos").mkdir()
    for i in range(9):
        pixels = draw.integers(0, 256, size=(20 + 3 * i, 31 - 2 * i, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "photos" / f"{i}.png")
    data = FolderData(source="folder", train=str(tmp_path / "photos"))
    return run_stage(DataJob, split="train", data=data, output=tmp_path / "listing.h5").output


@pytest.mark.parametrize("workers", [0, 2])
def test_an_image_that_went_away_stops_with_its_name_and_leaves_no_file(workers, folder, job_of, tmp_path, monkeypatch):
    monkeypatch.setattr(stage, "_BATCH", 4)
    stage.run(job_of(views=3, listing=folder, output=tmp_path / "whole.h5"), CPU, workers)
    with h5py.File(tmp_path / "whole.h5") as file:
        assert file["target"].shape == (9, 3, 8)
        assert (np.abs(np.linalg.norm(file["target"][:].astype(float), axis=2) - 1) < 2e-3).all()
    (tmp_path / "photos" / "7.png").unlink()
    message = refusal(stage.run, job_of(listing=folder, output=tmp_path / "targets.h5"), CPU, workers)
    assert str(tmp_path / "photos" / "7.png") in message
    assert not list(tmp_path.glob("*targets*"))


def test_targets_that_fit_are_accepted_with_their_digest_and_their_teachers(targets_of, demo, teacher, job_of):
    for changes in ({}, {"views": 3}, {"layer": "features"}, {"number": 1}):
        path = targets_of(**changes)
        digests = require_targets(path, demo.path, demo.listing, describe_targets(job_of(**changes), CPU))
        with h5py.File(path) as file:
            assert digests == (file.attrs["digest"], load_teacher(teacher.path, CPU).digest)


def test_targets_that_do_not_fit_are_refused(targets_of, demo, list_demo, preprocessing, job_of):
    path, other = targets_of(), list_demo(COUNT - 2)
    message = refusal(require_targets, path, other.path, other.listing, describe_targets(job_of(), CPU))
    assert message.startswith(f"{path}: belongs to another dataset")
    changes = [{key: value} for key, value in CHANGES.items()]
    for change in ({"size": 18}, {"mean": [0.5, 0.5, 0.5]}, {"std": [0.5, 0.5, 0.5]}):
        changes.append({"preprocessing": preprocessing.model_copy(update=change)})
    for change in (*changes, {"views": 1}):  # fewer views too: a file is of one student's settings
        drawn = describe_targets(job_of(**change), CPU)
        message = refusal(require_targets, path, demo.path, demo.listing, drawn)
        assert message.startswith(f"{path}: holds other outputs")
        assert drawn in message


def test_a_file_of_another_kind_or_none_is_refused(demo, job_of, tmp_path):
    for path in (demo.path, tmp_path / "missing.h5"):
        message = refusal(require_targets, path, demo.path, demo.listing, describe_targets(job_of(), CPU))
        assert message.startswith(f"{path}: ")


def test_outputs_are_told_apart_by_all_that_bears_on_them_and_not_by_the_version(job_of, monkeypatch):
    assert set(CHANGES) | {"version", "preprocessing"} == set(job_of().settings)
    plain = describe_targets(job_of(), CPU)
    described = [describe_targets(job_of(**{key: value}), CPU) for key, value in CHANGES.items()]
    assert len({plain, *described}) == len(CHANGES) + 1
    monkeypatch.setattr(TargetsJob, "STAGE_VERSION", 7)
    assert describe_targets(job_of(), CPU) == plain


def test_auto_precision_is_described_by_what_it_comes_to(job_of, monkeypatch):
    for native, dtype in ((True, "bfloat16"), (False, "float32")):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda native=native: {"avx512_bf16": native})
        described = describe_targets(job_of(precision="auto"), CPU)
        assert described == describe_targets(job_of(precision=dtype), CPU)


def batch_of(epoch, rows=3):
    return type("Batch", (), {"epoch": epoch, "rows": {"anchor": np.arange(rows)}})


def test_stored_outputs_are_read_from_the_file_of_the_views_number_at_the_epochs_view(targets_of):
    files = {number: targets_of(views=3, number=number) for number in (1, 0)}
    source = StoredTeacher(files, 3, CPU)
    assert source.width("projection") == 8
    for epoch in (0, 1, 1, 4, 2, 3):
        for number in (0, 1, 0):
            found = source.outputs("projection", View("anchor", number, teacher=True), batch_of(epoch, 5), None)
            assert found.dtype == torch.float32
            np.testing.assert_array_equal(found, stored(files[number])[:5, epoch % 3])
    features = StoredTeacher({0: targets_of(layer="features")}, 2, CPU)
    assert features.width("features") == 32


@pytest.mark.parametrize("damage", ["truncated", "flipped"])
def test_a_damaged_file_is_refused_when_it_is_read(damage, targets_of, demo, tmp_path):
    path = shutil.copy(targets_of(), tmp_path / "targets.h5")
    with h5py.File(path) as file:
        start = file["target"].id.get_chunk_info(1).byte_offset
    content = bytearray(path.read_bytes())
    content[start + 50] ^= 4
    path.write_bytes(content[: len(content) // 2] if damage == "truncated" else content)

    def read():
        source = StoredTeacher({0: path}, 2, CPU)
        return source.outputs("projection", View("anchor", 0, teacher=True), batch_of(1), None)

    assert refusal(read).startswith(f"{path}: truncated or damaged")
