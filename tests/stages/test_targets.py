import json
import math
import shutil
from types import SimpleNamespace

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
from bingo.study.jobs import TargetsJob
from bingo.study.method import View
from bingo.training.teacher import StoredTeacher, describe_targets, require_targets
from bingo.views.parameters import draw_for_teacher
from bingo.views.recipes import RECIPES

from .conftest import COUNT, CPU, INPUT

ADJUST = (V.adjust_brightness, V.adjust_contrast, V.adjust_saturation, V.adjust_hue)
OUTPUTS = [("features", 0), ("features", 1), ("projection", 0), ("projection", 1)]
CHANGES = {"recipe": "paper", "precision": "bfloat16", "layer": "features", "number": 1, "views": 3}


def one_by_one(demo, recipe, view, number):
    """Teacher views of all images, one after the other by torchvision's functions: (N, 3, S, S)."""
    shown = []
    for row in range(len(demo.listing)):
        (image,) = demo.images.fetch(np.array([row]))
        p = draw_for_teacher(RECIPES[recipe], np.array([row]), view, number, demo.listing.size[[row]])
        image = V.resized_crop(image / 255, *p.box[0].tolist(), [INPUT.size] * 2, antialias=True)
        image = V.horizontal_flip(image) if p.flip[0] else image
        for step in p.order[0].tolist():
            image = ADJUST[step](image, p.factor[0, step].item())
        shown.append(V.normalize(image, INPUT.mean, INPUT.std))
    return torch.stack(shown)


def stored(path):
    with h5py.File(path) as file:
        return file["target"][:].astype(float)


@pytest.mark.parametrize(("recipe", "outputs"), [("small", OUTPUTS), ("crop-flip", OUTPUTS[-1:])])
@torch.no_grad()
def test_a_file_holds_the_teachers_outputs_of_every_view_of_every_image(recipe, outputs, targets_of, demo, teacher):
    for layer, number in outputs:
        with h5py.File(targets_of(recipe=recipe, views=3, layer=layer, number=number)) as file:
            assert list(file) == ["target"]
            for view in range(3):
                features = teacher.backbone(one_by_one(demo, recipe, view, number))
                values = features if layer == "features" else teacher.head(features)
                units = values / values.square().sum(1, keepdim=True).sqrt()
                assert file["target"].shape == (COUNT, 3, values.shape[1])
                assert file["target"].dtype == np.float16
                np.testing.assert_allclose(file["target"][:, view], units, rtol=2e-3, atol=5e-4)


def test_the_file_names_the_dataset_the_teacher_and_the_settings(targets_of, demo, teacher, target_job):
    with h5py.File(targets_of()) as file:
        attributes = dict(file.attrs)
        assert file["target"].fletcher32
        assert file["target"].chunks == (COUNT, 1, 8)  # one view of many images is read at a time
    digest = load_teacher(teacher.path, CPU).digest
    assert (attributes["kind"], attributes["dataset_digest"]) == ("targets", demo.listing.digest)
    assert attributes["teacher_digest"] == digest
    assert attributes["drawn"] == describe_targets(target_job(), CPU)
    settings = {"recipe": "small", "precision": "float32", "layer": "projection", "number": 0, "views": 2}
    assert json.loads(attributes["drawn"]) == {**settings, "preprocessing": INPUT.model_dump()}
    provenance = json.loads(attributes["provenance"])
    assert (provenance["stage"], provenance["version"]) == ("targets", TargetsJob.STAGE_VERSION)
    assert provenance["device"] == "cpu"
    assert provenance["inputs"] == {"dataset": demo.listing.digest, "teacher": digest}
    assert provenance["settings"] == target_job().settings


def test_equal_inputs_and_any_number_of_workers_give_equal_bytes(target_job, tmp_path, monkeypatch):
    monkeypatch.setattr(stage, "_BATCH", 16)
    for workers in (0, 2):
        stage.run(target_job(output=tmp_path / f"{workers}.h5"), CPU, workers)
    assert (tmp_path / "0.h5").read_bytes() == (tmp_path / "2.h5").read_bytes()


def test_the_batch_changes_no_more_than_rounding(targets_of, target_job, tmp_path, monkeypatch):
    monkeypatch.setattr(stage, "_BATCH", 5)
    monkeypatch.setattr(stage, "_VIEWS_PER_READ", 2)
    stage.run(target_job(views=3, output=tmp_path / "targets.h5"), CPU, 0)
    np.testing.assert_allclose(stored(tmp_path / "targets.h5"), stored(targets_of(views=3)), atol=1e-3)


def test_precision_is_that_of_the_settings(targets_of):
    difference = np.abs(stored(targets_of(precision="bfloat16")) - stored(targets_of()))
    assert 1e-3 < difference.max() < 0.1


def test_a_teacher_that_cannot_show_these_images_is_refused(target_job, make_teacher, transformer, tmp_path):
    infinite, output = make_teacher(0, scale=math.inf).path, tmp_path / "targets.h5"
    with pytest.raises(BingoError, match=f"^{infinite}: .*finite"):
        stage.run(target_job(teacher=infinite, output=output), CPU, 0)
    with pytest.raises(BingoError, match=r"^backbone: .*data\.preprocessing\.size"):
        stage.run(target_job(teacher=transformer, output=output), CPU, 0)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("workers", [0, 2])
def test_a_deleted_image_stops_the_stage_by_its_name(workers, target_job, write_listings, tmp_path, monkeypatch):
    monkeypatch.setattr(stage, "_BATCH", 4)
    photos, draw = tmp_path / "photos", np.random.default_rng(0)
    photos.mkdir()
    for i in range(9):
        pixels = draw.integers(0, 256, size=(20 + 3 * i, 31 - 2 * i, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(photos / f"{i}.png")
    listing, _ = write_listings(tmp_path, FolderData(source="folder", train=str(photos)))
    stage.run(target_job(views=3, listing=listing, output=tmp_path / "whole.h5"), CPU, workers)
    norms = np.linalg.norm(stored(tmp_path / "whole.h5"), axis=2)
    assert norms.shape == (9, 3)
    assert (np.abs(norms - 1) < 2e-3).all()
    (photos / "7.png").unlink()
    with pytest.raises(BingoError, match=f"{photos / '7.png'}"):
        stage.run(target_job(listing=listing, output=tmp_path / "targets.h5"), CPU, workers)
    assert not list(tmp_path.glob("*targets*"))


def test_targets_that_do_not_fit_are_refused(targets_of, demo, list_demo, target_job, tmp_path, monkeypatch):
    path, other = targets_of(), list_demo(COUNT - 2)
    assert set(CHANGES) | {"version", "preprocessing"} == set(target_job().settings)
    monkeypatch.setattr(TargetsJob, "STAGE_VERSION", 7)  # which may differ
    drawn = describe_targets(target_job(), CPU)
    require_targets(path, demo.path, demo.listing, drawn)
    with pytest.raises(BingoError, match=f"^{path}: .*dataset"):
        require_targets(path, other.path, other.listing, drawn)
    inputs = [INPUT.model_copy(update=change) for change in ({"size": 18}, {"mean": [0.5] * 3}, {"std": [0.5] * 3})]
    changes = [*CHANGES.items(), *(("preprocessing", changed) for changed in inputs)]
    for key, value in (*changes, ("views", 1)):  # fewer views too: a file is of one student's settings
        with pytest.raises(BingoError, match=f"^{path}: "):
            require_targets(path, demo.path, demo.listing, describe_targets(target_job(**{key: value}), CPU))
    for wrong in (demo.path, tmp_path / "missing.h5"):
        with pytest.raises(BingoError, match=f"^{wrong}: "):
            require_targets(wrong, demo.path, demo.listing, drawn)


@pytest.mark.parametrize(("native", "dtype"), [(True, "bfloat16"), (False, "float32")])
def test_auto_precision_is_described_by_what_the_device_computes(native, dtype, target_job, monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": native})
    described = describe_targets(target_job(precision="auto"), CPU)
    assert described == describe_targets(target_job(precision=dtype), CPU)


def batch_of(epoch, rows=3):
    return SimpleNamespace(epoch=epoch, rows={"anchor": np.arange(rows)})


def test_stored_outputs_are_read_from_the_file_of_the_slot_at_the_view_of_the_epoch(targets_of):
    files = {number: targets_of(views=3, number=number) for number in (1, 0)}
    source = StoredTeacher(files, 3, CPU)
    assert source.width("projection") == 8
    for epoch in (0, 1, 1, 4, 2, 3):
        for number in (0, 1, 0):
            found = source.outputs("projection", View("anchor", number, teacher=True), batch_of(epoch, 5), None)
            assert found.dtype == torch.float32
            np.testing.assert_array_equal(found, stored(files[number])[:5, epoch % 3])
    features = StoredTeacher({0: targets_of(layer="features")}, 2, CPU)
    assert features.width("features") == 64


@pytest.mark.parametrize("damage", ["truncated", "flipped"])
def test_a_damaged_file_is_refused_when_it_is_read(damage, targets_of, tmp_path):
    path = shutil.copy(targets_of(), tmp_path / "targets.h5")
    with h5py.File(path) as file:
        start = file["target"].id.get_chunk_info(1).byte_offset
    content = bytearray(path.read_bytes())
    content[start + 50] ^= 4
    path.write_bytes(content[: len(content) // 2] if damage == "truncated" else content)

    def read():
        source = StoredTeacher({0: path}, 2, CPU)
        return source.outputs("projection", View("anchor", 0, teacher=True), batch_of(1), None)

    with pytest.raises(BingoError, match=f"^{path}: "):
        read()
