"""The model card of an exported network: origin, preprocessing, evaluation, loading code and provenance."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from bingo.artifacts.tensors import network_digest
from bingo.export.study_folder import StudyFolder
from bingo.export.transform import recorded_preprocessing
from bingo.study.sections import Backbone, Preprocessing

_UNKNOWN = "unknown: no file in its study's folder has the recorded digest"


def model_card(
    spec: Backbone,
    features: int,
    preprocessing: Preprocessing,
    metadata: Mapping[str, Any],
    study_folder: StudyFolder,
    loaders: Mapping[str, str],
    library: str,
) -> str:
    """Return the README of a folder for the Hugging Face Hub.

    Args:
        spec: the backbone.
        features: width of its output.
        preprocessing: its image preprocessing.
        metadata: metadata of its file.
        study_folder: files of its study.
        loaders: description and code of each way to load the folder.
        library: Hugging Face's name of the library that loads it.
    """
    front = {
        "library_name": library,
        "pipeline_tag": "image-feature-extraction",
        "license": "other",
        "license_name": "see-licence-note",
        "tags": ["self-supervised-learning", "knowledge-distillation", "bingo", spec.architecture, "onnx"],
    }
    width = f", width {spec.width:g}" if spec.width != 1 else ""
    stem = f", stem {spec.stem}" if spec.stem != "imagenet" else ""
    provenance = metadata.get("provenance", {})
    lines = [
        f"---\n{yaml.safe_dump(front, sort_keys=False)}---",
        f"# {study_folder.name}",
        f"A backbone {spec.architecture}{width}{stem} that maps an image to {features} features.",
        "## Training",
        "\n".join(f"- {name}: {text}" for name, text in _origin(metadata, study_folder)),
        "## Preprocessing",
        ("" if recorded_preprocessing(metadata) else "The file does not record the preprocessing; this is assumed: ")
        + f"RGB in [0, 1], shorter side resized to {preprocessing.resize} px (bilinear, antialiased), centre crop of "
        f"{preprocessing.size} x {preprocessing.size} px, normalised with mean {preprocessing.mean} and standard "
        f"deviation {preprocessing.std}.",
        "## Evaluation",
        _evaluation(study_folder),
        "## How to load it",
        *(f"{line}\n\n```python\n{code.strip()}\n```" for line, code in loaders.items()),
        "## Licence note",
        "This card grants no licence. The terms of the training images and of the teacher determine how the weights "
        "may be used. Check them before you publish the weights, and state the licence in `license` above.",
        "## Provenance",
        "\n".join(f"- {name}: {text}" for name, text in _provenance(metadata, provenance)),
        f"Settings:\n\n```json\n{json.dumps(provenance.get('settings', {}), indent=2, sort_keys=True)}\n```",
    ]
    return "\n\n".join(lines) + "\n"


def _origin(metadata: Mapping[str, Any], study_folder: StudyFolder) -> Iterator[tuple[str, str]]:
    inputs = metadata.get("provenance", {}).get("inputs", {})
    listing = study_folder.listing
    if "dataset" in inputs:
        images = _UNKNOWN if listing is None else f"{len(listing):,} images, source {listing.source}"
        yield "data", f"{images}; digest `{inputs['dataset']}`"
    if "teacher" in inputs:
        yield "teacher", f"{_teacher(study_folder)}; digest `{inputs['teacher']}`"
    if "bags" in inputs:
        yield "bags", f"{_bags(study_folder)}; digest `{inputs['bags']}`"
    yield "method", f"{metadata.get('method', 'unknown')}; see the settings below"


def _teacher(study_folder: StudyFolder) -> str:
    if study_folder.teacher is None:
        return _UNKNOWN
    name, metadata = study_folder.teacher
    spec = Backbone.model_validate(metadata["backbone"])
    file = metadata.get("provenance", {}).get("file")
    text = f"{name}, {spec.architecture} of width {spec.width:g}, {metadata['method']}"
    return f"{text}, from {file}" if file else text


def _bags(study_folder: StudyFolder) -> str:
    if study_folder.bags is None:
        return _UNKNOWN
    name, attributes = study_folder.bags
    settings = {key: value for key, value in attributes["provenance"]["settings"]["bags"].items() if key != "teacher"}
    return f"{name}, `{json.dumps(settings)}`"


def _evaluation(study_folder: StudyFolder) -> str:
    if not study_folder.results:
        return "Not evaluated: no result file with this network's digest was found."
    rows = [
        f"| {result['protocol']} | {metric} | {value:.2f} | {result['seed']} |"
        for result in study_folder.results
        for metric, value in result["metrics"].items()
    ]
    head = ["In percent, by fixed protocols.\n", "| protocol | metric | value | seed |", "|:--|:--|--:|--:|"]
    return "\n".join([*head, *rows])


def _provenance(metadata: Mapping[str, Any], provenance: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield "digest of the network", f"`{network_digest(metadata)}`"
    for name, key in (("stage", "stage"), ("version of the stage", "version"), ("seed", "seed"), ("file", "file")):
        if key in provenance:
            yield name, str(provenance[key])
    if packages := provenance.get("packages"):
        yield "packages", ", ".join(f"{name} {number}" for name, number in sorted(packages.items()))
