"""The model card: what a network is, where it comes from, what was measured, how it is loaded."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from bingo.artifacts.tensors import network_digest
from bingo.export.study_folder import StudyFolder
from bingo.export.transform import recorded_preprocessing
from bingo.study.sections import Backbone, Preprocessing

_UNKNOWN = "not known: no file of its study beside it has the digest on record"


def model_card(
    spec: Backbone,
    features: int,
    preprocessing: Preprocessing,
    metadata: Mapping[str, Any],
    beside: StudyFolder,
    loaders: Mapping[str, str],
    library: str,
) -> str:
    """Return the README of a folder for the Hugging Face Hub. Every number in it comes from a file that is read.

    Args:
        spec: the backbone.
        features: width of its output.
        preprocessing: how images become its input.
        metadata: what its file says of itself.
        beside: what its study's folder holds of it.
        loaders: a line about each way to load the folder, and the code for it.
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
    made = metadata.get("provenance", {})
    lines = [
        f"---\n{yaml.safe_dump(front, sort_keys=False)}---",
        f"# {beside.name}",
        f"The backbone {spec.architecture}{width}{stem}: it maps an image to {features} features.",
        "## How it was made",
        "\n".join(f"- {name}: {said}" for name, said in _origin(metadata, beside)),
        "## Images",
        ("" if recorded_preprocessing(metadata) else "The network's file does not say what it saw; this is assumed: ")
        + f"RGB in [0, 1], the shorter side resized to {preprocessing.resize} px (bilinear, antialiased), the centre "
        f"{preprocessing.size} x {preprocessing.size} cut out, less the mean {preprocessing.mean}, divided by the "
        f"standard deviation {preprocessing.std}.",
        "## Evaluation",
        _evaluation(beside),
        "## How to load it",
        *(f"{line}\n\n```python\n{code.strip()}\n```" for line, code in loaders.items()),
        "## Licence note",
        "This card grants no licence. What may be done with the weights depends on the terms of the training images "
        "and of the teacher, which whoever publishes them has to check; state the licence in `license` above.",
        "## Provenance",
        "\n".join(f"- {name}: {said}" for name, said in _provenance(metadata, made)),
        f"Settings:\n\n```json\n{json.dumps(made.get('settings', {}), indent=2, sort_keys=True)}\n```",
    ]
    return "\n\n".join(lines) + "\n"


def _origin(metadata: Mapping[str, Any], beside: StudyFolder) -> Iterator[tuple[str, str]]:
    inputs = metadata.get("provenance", {}).get("inputs", {})
    listing = beside.listing
    if "dataset" in inputs:
        images = _UNKNOWN if listing is None else f"{len(listing):,} images, source {listing.source}"
        yield "data", f"{images}; digest `{inputs['dataset']}`"
    if "teacher" in inputs:
        yield "teacher", f"{_teacher(beside)}; digest `{inputs['teacher']}`"
    if "bags" in inputs:
        yield "bags", f"{_bags(beside)}; digest `{inputs['bags']}`"
    yield "method", f"{metadata.get('method', 'not said')}; its settings are below"


def _teacher(beside: StudyFolder) -> str:
    if beside.teacher is None:
        return _UNKNOWN
    name, said = beside.teacher
    spec = Backbone.model_validate(said["backbone"])
    file = said.get("provenance", {}).get("file")
    return f"{name}, {spec.architecture} of width {spec.width:g}, {said['method']}" + (f", from {file}" if file else "")


def _bags(beside: StudyFolder) -> str:
    if beside.bags is None:
        return _UNKNOWN
    name, said = beside.bags
    settings = {key: value for key, value in said["provenance"]["settings"]["bags"].items() if key != "teacher"}
    return f"{name}, `{json.dumps(settings)}`"


def _evaluation(beside: StudyFolder) -> str:
    if not beside.results:
        return "Not evaluated: no result file with this network's digest was found."
    rows = [
        f"| {result['protocol']} | {metric} | {value:.2f} | {result['seed']} |"
        for result in beside.results
        for metric, value in result["metrics"].items()
    ]
    head = ["In percent, by frozen protocols.\n", "| protocol | metric | value | seed |", "|:--|:--|--:|--:|"]
    return "\n".join([*head, *rows])


def _provenance(metadata: Mapping[str, Any], made: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield "digest of the network", f"`{network_digest(metadata)}`"
    for name, key in (("stage", "stage"), ("version of the stage", "version"), ("seed", "seed"), ("file", "file")):
        if key in made:
            yield name, str(made[key])
    if packages := made.get("packages"):
        yield "packages", ", ".join(f"{name} {number}" for name, number in sorted(packages.items()))
