"""What a study's folder holds of a network's making: each file is taken only if its digest is the one on record."""

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
    """Files beside a network that belong to it; None, or nothing, where they are not there or are others."""

    name: str
    """Study and network, `birds: bingo`; the file's name outside of a study."""
    listing: Listing | None = None
    """Its training images."""
    teacher: tuple[str, dict[str, Any]] | None = None
    """Name and metadata."""
    bags: tuple[str, dict[str, Any]] | None = None
    """Name and attributes."""
    results: list[dict[str, Any]] = field(default_factory=list)
    """Its result files, by protocol."""


def find_study_folder(model: Path, metadata: Mapping[str, Any]) -> StudyFolder:
    """Look for what belongs to a network in the folder of its study, results/<study>.

    Args:
        model: `students/<name>/seed-<n>/backbone.safetensors` or `teachers/<name>.safetensors` there; of a file that
            lies elsewhere nothing is found.
        metadata: what the file says of itself.

    Raises:
        BingoError: a file that would have to be read is damaged.
    """
    place = _place(model)
    if place is None:
        return StudyFolder(model.stem)
    study, name = place
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

    None where no result that lies beside it says one, where several say different ones, which is logged, and for a
    network that does not say what it was trained on: its crop is not known either.

    Raises:
        BingoError: the network's file or a result is damaged.
    """
    metadata, place = read_metadata(model), _place(model)
    if place is None or recorded_preprocessing(metadata) is None:
        return None
    settings = (result["provenance"]["settings"] for result in _results(*place, metadata))
    said = {found.get("preprocessing", {}).get("resize") for found in settings} - {None}
    if len(said) > 1:
        log.warning("%s: was evaluated with several sizes before the crop (%s); taking none", model, sorted(said))
    return said.pop() if len(said) == 1 else None


def _place(model: Path) -> tuple[Path, str] | None:
    """Return the folder of the study that a network lies in, and its name there; None elsewhere."""
    path = model.absolute()
    if path.parent.name == "teachers":
        return path.parents[1], path.stem
    if len(path.parents) > 3 and path.parents[2].name == "students":
        return path.parents[3], path.parents[1].name
    return None


def _results(study: Path, name: str, metadata: Mapping[str, Any]) -> list[dict[str, Any]]:
    found = [read_result(result) for result in sorted(study.glob(f"evaluation/{name}/seed-*/*.json"))]
    own = network_digest(metadata)
    return [result for result in found if result["provenance"]["inputs"].get("model") == own]


def _listing(study: Path, digest: str | None) -> Listing | None:
    paths = [path for name in ("train.h5", "train-listing.h5") if (path := study / "data" / name).exists()]
    listings = (read_listing(path, "train") for path in paths if digest is not None)
    return next((listing for listing in listings if listing.digest == digest), None)


def _teacher(study: Path, digest: str | None) -> tuple[str, dict[str, Any]] | None:
    paths = sorted(study.glob("teachers/*.safetensors")) if digest is not None else []
    found = ((path.stem, read_metadata(path)) for path in paths)
    return next(((name, said) for name, said in found if network_digest(said) == digest), None)


def _bags(study: Path, digest: str | None) -> tuple[str, dict[str, Any]] | None:
    for path in sorted(study.glob("bags/*.h5")) if digest is not None else ():
        with read_hdf5(path, "bags") as file:
            if file.attrs["digest"] == digest:
                return path.stem, {**file.attrs, "provenance": json.loads(file.attrs["provenance"])}
    return None
