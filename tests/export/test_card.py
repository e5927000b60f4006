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
from tests.importers.source_networks import settled

from ..stage import run_stage

SPEC = {"architecture": "resnet10", "width": 1 / 64, "stem": "small"}
OTHER = "0" * 64


@pytest.fixture
def study(student, tmp_path):
    """The folder of a study with one student; return (folder, the student's file)."""
    folder = tmp_path / "results" / "birds"
    listing, bags = folder / "data/train-listing.h5", folder / "bags/r-3.h5"
    teacher = folder / "teachers/big.safetensors"
    run_stage(DataJob, split="train", data=DemoData(source="demo", max_train=21), output=listing)
    run_stage(BagsJob, bags=RandomBag(criterion="random", size=3), listing=listing, output=bags)
    spec = Backbone(**{**SPEC, "width": 1 / 32})
    torch.manual_seed(5)
    weights = settled(build_backbone(spec)).state_dict()
    imported = {"method": "imported (moco)", "provenance": {"file": "moco_800ep.pth"}}
    write_teacher(teacher, spec, weights, {}, imported)
    write_teacher(teacher.with_name("another.safetensors"), spec, weights, {}, {"method": "moco"}, "gelu")
    inputs = {
        "dataset": read_listing(listing, "train").digest,
        "teacher": network_digest(read_metadata(teacher)),
        "bags": read_bags(bags).attributes["digest"],
    }
    path = folder / "students/small/seed-3/backbone.safetensors"
    student(path, inputs, **SPEC)
    return folder, path


def measured(folder, path, value, protocol="knn-10", digest=None, model="small", resize=256):
    own = network_digest(read_metadata(path)) if digest is None else digest
    made = {"inputs": {"model": own}, "settings": {"preprocessing": Preprocessing(resize=resize).model_dump()}}
    output = folder / f"evaluation/{model}/seed-3/{protocol}.json"
    write_result(output, protocol, model, 3, {"top1": value, "top5": 99.0}, {}, made)
    return output


def card(path):
    _, metadata = read_backbone(path, torch.device("cpu"))
    spec, beside = Backbone.model_validate(metadata["backbone"]), find_study_folder(path, metadata)
    return model_card(spec, 8, preprocessing_of(metadata, None, path), metadata, beside, {"So:": "load()"}, "onnx")


def test_it_tells_data_teacher_bags_and_results_from_the_files_beside(study):
    folder, path = study
    measured(folder, path, 61.257)
    measured(folder, path, 70.5, "linear-cached")
    text = card(path)
    assert "# birds: small\n" in text
    assert "- data: 21 images, source demo; digest `" in text
    assert "- teacher: big, resnet10 of width 0.03125, imported (moco), from moco_800ep.pth; digest `" in text
    assert '- bags: r-3, `{"criterion": "random", "seed": 0, "size": 3}`; digest `' in text
    assert "| knn-10 | top1 | 61.26 | 3 |" in text
    assert "| linear-cached | top1 | 70.50 | 3 |" in text
    assert "- seed: 3" in text
    assert "- version of the stage: 7" in text
    assert "- packages: torch 2.0.1" in text
    assert f"- digest of the network: `{network_digest(read_metadata(path))}`" in text
    assert "resized to 73 px" in text
    assert "So:\n\n```python\nload()\n```" in text
    assert "## Licence note" in text
    assert json.loads(text.rpartition("```json")[2].strip().strip("`")) == read_metadata(path)["provenance"]["settings"]


def test_its_front_matter_is_the_hubs(study):
    _, path = study
    _, front, _ = card(path).split("---\n", 2)
    assert yaml.safe_load(front) == {
        "library_name": "onnx",
        "pipeline_tag": "image-feature-extraction",
        "license": "other",
        "license_name": "see-licence-note",
        "tags": ["self-supervised-learning", "knowledge-distillation", "bingo", "resnet10", "onnx"],
    }


def test_a_result_of_another_network_is_none(study):
    folder, path = study
    measured(folder, path, 61.257, digest=OTHER)
    text = card(path)
    assert "61.26" not in text
    assert "Not evaluated: no result file with this network's digest was found." in text


def test_the_shorter_side_is_that_of_the_networks_own_evaluations(study):
    folder, path = study
    assert evaluated_resize(path) is None
    measured(folder, path, 50.0, digest=OTHER)
    assert evaluated_resize(path) is None
    measured(folder, path, 61.257)
    assert evaluated_resize(path) == 256
    measured(folder, path, 40.0, "linear-cached", resize=230)
    assert evaluated_resize(path) is None


def test_of_a_network_that_does_not_say_its_input_no_evaluation_tells_the_shorter_side(study):
    folder, _ = study
    teacher = folder / "teachers/big.safetensors"
    measured(folder, teacher, 61.257, model="big", resize=230)
    assert evaluated_resize(teacher) is None
    assert find_study_folder(teacher, read_metadata(teacher)).results


def test_a_damaged_result_is_an_error(study):
    folder, path = study
    result = measured(folder, path, 61.257)
    result.with_name(f".{result.name}.sha256").unlink()
    write_text(result, result.read_text().replace("61.257", "91.257"))
    with pytest.raises(BingoError, match=r"knn-10\.json: no result file"):
        card(path)


@pytest.mark.parametrize(("key", "told"), [("dataset", "data"), ("bags", "bags"), ("teacher", "teacher")])
def test_a_file_that_is_not_what_the_network_was_made_from_is_not_told(key, told, study, student):
    _, path = study
    student(path, {**read_metadata(path)["provenance"]["inputs"], key: OTHER}, **SPEC)
    said = f"- {told}: not known: no file of its study beside it has the digest on record; digest `{OTHER}`"
    assert said in card(path)


def test_a_network_outside_of_a_study_has_a_card_too(study, tmp_path):
    _, path = study
    moved = tmp_path / "taken.safetensors"
    moved.write_bytes(path.read_bytes())
    text = card(moved)
    assert "# taken\n" in text
    assert "- data: not known" in text
    assert "Not evaluated" in text


def test_of_an_imported_teacher_it_says_that_its_input_is_assumed(study):
    folder, _ = study
    text = card(folder / "teachers/big.safetensors")
    assert "# birds: big\n" in text
    assert "The network's file does not say what it saw; this is assumed: RGB in [0, 1], " in text
    assert "- file: moco_800ep.pth" in text
