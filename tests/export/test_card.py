import json

import pytest
import torch
import yaml

from bingo.artifacts.files import write_text
from bingo.artifacts.results import write_result
from bingo.artifacts.tensors import network_digest, read_metadata
from bingo.bags.bags import read_bags
from bingo.data.listing import read_listing
from bingo.errors import BingoError
from bingo.export.card import model_card
from bingo.export.study_folder import evaluated_resize, find_study_folder
from bingo.export.transform import preprocessing_of
from bingo.models.backbone import build_backbone
from bingo.models.checkpoint import read_backbone, write_teacher
from bingo.study.bags import RandomBag
from bingo.study.images import DemoData
from bingo.study.jobs import BagsJob, DataJob
from bingo.study.sections import Backbone, Preprocessing
from tests.stage import run_stage

SPEC = {"architecture": "resnet10", "width": 1 / 64, "stem": "small"}
OTHER = "0" * 64


@pytest.fixture
def study(student, tmp_path):
    """The folder of a study with one student; return (folder, the student's file)."""
    folder = tmp_path / "results" / "birds"
    listing, bags = folder / "data/train-listing.h5", folder / "bags/r-3.h5"
    big = folder / "teachers/big.safetensors"
    run_stage(DataJob, split="train", data=DemoData(source="demo", max_train=21), output=listing)
    run_stage(BagsJob, bags=RandomBag(criterion="random", size=3), listing=listing, output=bags)
    spec = Backbone(**{**SPEC, "width": 1 / 32})
    weights = build_backbone(spec).state_dict()
    write_teacher(big, spec, weights, {}, {"method": "imported (moco)", "provenance": {"file": "moco_800ep.pth"}})
    write_teacher(big.with_name("another.safetensors"), spec, weights, {}, {"method": "moco"}, "gelu")
    inputs = {
        "dataset": read_listing(listing, "train").digest,
        "teacher": network_digest(read_metadata(big)),
        "bags": read_bags(bags).attributes["digest"],
    }
    path = folder / "students/small/seed-3/backbone.safetensors"
    path.parent.mkdir(parents=True)
    student(path, inputs, **SPEC)
    return folder, path


def measured(folder, path, value, protocol="knn-10", digest=None, model="small", resize=256):
    own = network_digest(read_metadata(path)) if digest is None else digest
    provenance = {"inputs": {"model": own}, "settings": {"preprocessing": Preprocessing(resize=resize).model_dump()}}
    output = folder / f"evaluation/{model}/seed-3/{protocol}.json"
    write_result(output, protocol, model, 3, {"top1": value, "top5": 99.0}, {}, provenance)
    return output


def card(path):
    """Return the card's front matter, and its text."""
    _, metadata = read_backbone(path, torch.device("cpu"))
    spec, beside = Backbone.model_validate(metadata["backbone"]), find_study_folder(path, metadata)
    text = model_card(spec, 8, preprocessing_of(metadata, None, path), metadata, beside, {"So:": "load()"}, "onnx")
    _, front, body = text.split("---\n", 2)
    return yaml.safe_load(front), body


def line_of(text, name):
    (line,) = (line for line in text.splitlines() if line.startswith(f"- {name}: "))
    return line


def test_a_card_states_data_teacher_bags_and_results_from_the_files_beside_the_network(study):
    folder, path = study
    measured(folder, path, 61.257)
    measured(folder, path, 70.5, "linear-cached")
    front, text = card(path)
    assert (front["library_name"], front["pipeline_tag"]) == ("onnx", "image-feature-extraction")
    assert {"resnet10", "onnx"} <= set(front["tags"])
    metadata = read_metadata(path)
    inputs = metadata["provenance"]["inputs"]
    assert "# birds: small\n" in text
    for line, digest, facts in (
        ("data", inputs["dataset"], ["21 images", "demo"]),
        ("teacher", inputs["teacher"], ["big", "resnet10", "0.03125", "imported (moco)", "moco_800ep.pth"]),
        ("bags", inputs["bags"], ["r-3", '{"criterion": "random", "seed": 0, "size": 3}']),
    ):
        assert all(fact in line_of(text, line) for fact in [*facts, f"`{digest}`"])
    for fact in ("| knn-10 | top1 | 61.26 | 3 |", "| linear-cached | top1 | 70.50 | 3 |", "73 px", "torch 2.0.1"):
        assert fact in text
    assert f"`{network_digest(metadata)}`" in text
    assert "```python\nload()\n```" in text
    assert json.loads(text.rpartition("```json")[2].strip().strip("`")) == metadata["provenance"]["settings"]


def test_results_of_another_network_are_left_out_and_a_damaged_one_is_an_error(study):
    folder, path = study
    result = measured(folder, path, 61.257, digest=OTHER)
    assert "61.26" not in card(path)[1]
    result.with_name(f".{result.name}.sha256").unlink()
    write_text(result, result.read_text().replace("61.257", "91.257"))
    with pytest.raises(BingoError, match=f"^{result}: "):
        card(path)


def test_the_shorter_side_is_that_of_the_networks_own_evaluations(study):
    folder, path = study
    assert evaluated_resize(path) is None
    measured(folder, path, 50.0, digest=OTHER)
    assert evaluated_resize(path) is None
    measured(folder, path, 61.257)
    assert evaluated_resize(path) == 256
    measured(folder, path, 40.0, "linear-cached", resize=230)
    assert evaluated_resize(path) is None
    # A teacher that does not record its input has none either.
    teacher = folder / "teachers/big.safetensors"
    measured(folder, teacher, 61.257, model="big", resize=230)
    assert evaluated_resize(teacher) is None
    assert find_study_folder(teacher, read_metadata(teacher)).results


@pytest.mark.parametrize(("key", "line"), [("dataset", "data"), ("bags", "bags"), ("teacher", "teacher")])
def test_files_of_another_origin_are_not_stated(key, line, study, student):
    _, path = study
    student(path, {**read_metadata(path)["provenance"]["inputs"], key: OTHER}, **SPEC)
    text = line_of(card(path)[1], line)
    assert OTHER in text
    assert not any(fact in text for fact in ("21 images", "r-3", "big"))


def test_a_network_outside_of_a_study_has_a_card_too(study, tmp_path):
    _, path = study
    moved = tmp_path / "taken.safetensors"
    moved.write_bytes(path.read_bytes())
    _, text = card(moved)
    assert "# taken\n" in text
    assert "21 images" not in text
