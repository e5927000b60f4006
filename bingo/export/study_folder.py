"""Files of a study that belong to a network; each is used only if its digest matches the recorded one."""

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bingo.artifacts.hdf5 import read_hdf5
from bingo.artifacts.results import read_result
from bingo.artifacts.tensors import network_digest, read_metadata
from bingo.data.listing import Listing, read_listing
from bingo.export.transform import recorded_preprocessing

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class StudyFolder:
    """Files of a study that belong to a network; None or empty if missing or of another network."""

    name: str
    """Study and network, such as `birds: bingo`; outside a study, the file name."""
    listing: Listing | None = None
    """Listing of the training images."""
    teacher: tuple[str, dict[str, Any]] | None = None
    """Name and metadata of the teacher."""
    bags: tuple[str, dict[str, Any]] | None = None
    """Name and attributes of the bags."""
    results: list[dict[str, Any]] = field(default_factory=list)
    """Results of the network, ordered by protocol."""


def find_study_folder(model: Path, metadata: Mapping[str, Any]) -> StudyFolder:
    """Return the files that belong to a network in the folder of its study, results/<study>.

    Args:
        model: `students/<name>/seed-<n>/backbone.safetensors` or `teachers/<name>.safetensors` in that folder. For
            other paths, the result is empty.
        metadata: metadata of the file.

    Raises:
        BingoError: a file of the study is damaged.
    """
    location = _locate(model)
    if location is None:
        return StudyFolder(model.stem)
    study, name = location
    inputs = metadata.get("provenance", {}).get("inputs", {})
    return StudyFolder(
        name=f"{study.name}: {name}",
        listing=_listing(study, inputs.get("dataset")),
        teacher=_teacher(study, inputs.get("teacher")),
        bags=_bags(study, inputs.get("bags")),
        results=_results(study, name, metadata),
    )


def evaluated_resize(model: Path) -> int | None:
    """Return the shorter side before the crop in a network's evaluations.

    The result is None without results in the study's folder, if the results disagree (with a warning), and for networks
    without recorded preprocessing, whose crop is unknown.

    Raises:
        BingoError: the network's file or a result is damaged.
    """
    metadata, location = read_metadata(model), _locate(model)
    if location is None or recorded_preprocessing(metadata) is None:
        return None
    all_settings = (result["provenance"]["settings"] for result in _results(*location, metadata))
    sizes = {settings.get("preprocessing", {}).get("resize") for settings in all_settings} - {None}
    if len(sizes) > 1:
        log.warning("%s: was evaluated with several values of resize (%s); ignoring them", model, sorted(sizes))
    return sizes.pop() if len(sizes) == 1 else None


def _locate(model: Path) -> tuple[Path, str] | None:
    """Return the study folder that contains a network, and the network's name; None if it is elsewhere."""
    path = model.absolute()
    if path.parent.name == "teachers":
        return path.parents[1], path.stem
    if len(path.parents) > 3 and path.parents[2].name == "students":
        return path.parents[3], path.parents[1].name
    return None


def _results(study: Path, name: str, metadata: Mapping[str, Any]) -> list[dict[str, Any]]:
    results = [read_result(path) for path in sorted(study.glob(f"evaluation/{name}/seed-*/*.json"))]
    digest = network_digest(metadata)
    return [result for result in results if result["provenance"]["inputs"].get("model") == digest]


def _listing(study: Path, digest: str | None) -> Listing | None:
    paths = [path for name in ("train.h5", "train-listing.h5") if (path := study / "data" / name).exists()]
    listings = (read_listing(path, "train") for path in paths if digest is not None)
    return next((listing for listing in listings if listing.digest == digest), None)


def _teacher(study: Path, digest: str | None) -> tuple[str, dict[str, Any]] | None:
    paths = sorted(study.glob("teachers/*.safetensors")) if digest is not None else []
    teachers = ((path.stem, read_metadata(path)) for path in paths)
    return next(((name, metadata) for name, metadata in teachers if network_digest(metadata) == digest), None)


def _bags(study: Path, digest: str | None) -> tuple[str, dict[str, Any]] | None:
    for path in sorted(study.glob("bags/*.h5")) if digest is not None else ():
        with read_hdf5(path, "bags") as file:
            if file.attrs["digest"] == digest:
                return path.stem, {**file.attrs, "provenance": json.loads(file.attrs["provenance"])}
    return None
