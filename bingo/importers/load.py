"""Load the weights of other projects as a teacher: a backbone and its projection head."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from bingo.errors import BingoError, nearest
from bingo.importers.formats import FORMATS, Format, NetworkLayout
from bingo.importers.networks import (
    STEMS,
    TIMM_HINT,
    ArchitectureMismatchError,
    blueprint,
    build_head,
    infer_spec,
    match_weights,
    name_modules,
    parse_spec,
    shorten_names,
)
from bingo.importers.read import CheckpointContents, read_contents
from bingo.models.backbone import classifier_prefixes, feature_width
from bingo.study.sections import TIMM, Backbone
from bingo.study.teachers import CheckpointFormat


@dataclass(frozen=True)
class ImportedNetwork:
    """One network of a file."""

    format: str
    """Who wrote the file."""
    part: str
    """Which of its networks this is."""
    spec: Backbone
    """What the backbone is."""
    backbone: dict[str, Tensor]
    """State dict that the backbone built from ``spec`` loads strictly."""
    head: dict[str, Tensor]
    """State dict of the projection head, with the names of a Sequential; empty where there is none."""
    activation: str
    """What lies between the head's layers, ``relu`` or ``gelu``."""
    left_out: list[str]
    """Names in the file, less a common ``module.``, that this network does not need."""


def load_checkpoint(
    path: Path, format: CheckpointFormat | None, part: str | None, architecture: str | None
) -> ImportedNetwork:
    """Read one network of a file of weights.

    Args:
        path: the file.
        format: who wrote it; None to find out.
        part: which of its networks; None for the one that its authors evaluate.
        architecture: what the backbone is, where shapes do not tell; None to find out.

    Raises:
        BingoError: the file is missing, damaged, would have to be executed, is not of that format, has no such part,
            or its names, shapes and values are not exactly those of a network that is known.
    """
    contents = read_contents(path)
    likeness = detect_formats(contents, architecture)
    try:
        chosen = likeness if format is None else next(entry for entry in FORMATS if entry.name == format)
        if chosen is None:
            raise ArchitectureMismatchError(
                f"no known layout has such names ({shorten_names(contents.state)}); {TIMM_HINT}"
            )
        parts = {entry.name: entry for entry in find_networks(chosen, contents, architecture)}
        if not parts:
            raise ArchitectureMismatchError(f"is no file of {chosen.name}; correct the format or leave it out")
        if part is not None and part not in parts:
            raise ArchitectureMismatchError(f"a file of {chosen.name} has no part '{part}'{nearest(part, parts)}")
        return import_network(contents, chosen, parts[part or next(iter(parts))], architecture)
    except ArchitectureMismatchError as error:
        hint = f"; it looks like {likeness.name}" if likeness and format not in (None, likeness.name) else ""
        raise BingoError(f"{path}: {error}{hint}") from error


def find_networks(format: Format, contents: CheckpointContents, architecture: str | None) -> list[NetworkLayout]:
    """Return the networks that a file has if it is of that format, the default one first."""
    found: dict[str, NetworkLayout] = {}
    for part in format.parts if format.own == bool(contents.metadata) else ():
        bare = not found and (STEMS.keys() & contents.state or (architecture or "").startswith(TIMM))
        if any(name.startswith(part.backbone) for name in contents.state) if part.backbone else bare:
            found.setdefault(part.name, part)
    return list(found.values())


def detect_formats(contents: CheckpointContents, architecture: str | None) -> Format | None:
    """Return the format that a file has, None where it is none that is known."""
    told = [*contents.state, architecture or ""]

    def fits(format: Format) -> bool:
        shapes = [_shapes_under(prefix, contents) for prefix in format.unlike]
        return (
            all(any(re.search(mark, name) for name in told) for mark in format.marks)
            and format.place in ("", contents.place)
            and (not shapes or shapes[0] != shapes[1])
            and bool(find_networks(format, contents, architecture))
        )

    return next(filter(fits, FORMATS), None)


def _shapes_under(prefix: str, contents: CheckpointContents) -> dict[str, torch.Size]:
    return {name.removeprefix(prefix): x.shape for name, x in contents.state.items() if name.startswith(prefix)}


def import_network(
    contents: CheckpointContents, format: Format, part: NetworkLayout, architecture: str | None
) -> ImportedNetwork:
    """Take one network out of a file.

    Raises:
        ArchitectureMismatchError: names, shapes or values are not exactly those of a network that is known.
    """
    state = contents.state
    backbone, heads, left_out = _sorted(state, format, part)
    backbone = name_modules(backbone)
    shapes = {name: state[place].shape for name, place in backbone.items()}
    spec = parse_spec(contents.metadata.get("backbone")) if format.own else infer_spec(shapes, architecture)
    if architecture not in (None, spec.architecture):
        raise ArchitectureMismatchError(
            f"is {spec.architecture}, not {architecture}; correct the architecture or leave it out"
        )
    if spec.stem == "small" and not format.same_stem:
        raise ArchitectureMismatchError(
            f"{format.name} pads its 3x3 first convolution by 2, this project by 1; use another network"
        )
    network = blueprint(spec)
    classifier = classifier_prefixes(network)
    left_out += [backbone.pop(name) for name in list(backbone) if name.startswith(classifier)]
    weights = match_weights(network, backbone, state, spec.architecture)
    if len(heads) > 1:
        raise ArchitectureMismatchError(
            f"has several projection heads ({', '.join(heads)}); save the one that is meant"
        )
    prefix, head = next(iter(heads.items()), ("", {}))
    activation = contents.metadata.get("activation", part.heads.get(prefix, "relu"))
    layers = build_head(head, state, activation, feature_width(network))
    projection = match_weights(layers, head, state, "projection head")
    return ImportedNetwork(format.name, part.name, spec, weights, projection, activation, left_out)


def _sorted(
    names: Iterable[str], format: Format, part: NetworkLayout
) -> tuple[dict[str, str], dict[str, dict[str, str]], list[str]]:
    """Sort names into those of the backbone, of each head (own name: name in the file), and those not needed."""
    backbone: dict[str, str] = {}
    heads: dict[str, dict[str, str]] = {}
    left_out, unknown = [], []
    others = [other for other in format.parts if other.name != part.name and other.backbone]
    needless = tuple(prefix for other in others for prefix in (other.backbone, *other.heads, *other.left_out))
    for name in names:
        prefix = next((prefix for prefix in part.heads if name.startswith(prefix)), None)
        if prefix is not None:
            own = name.removeprefix(prefix)
            heads.setdefault(prefix, {})[own if "." in own else f"0.{own}"] = name  # a single layer has no number
        elif name.startswith((*part.left_out, *format.left_out, *needless)):
            left_out.append(name)
        elif name.startswith(part.backbone):
            backbone[name.removeprefix(part.backbone)] = name
        else:
            unknown.append(name)
    if unknown:
        raise ArchitectureMismatchError(
            f"holds {len(unknown)} names that no part of {format.name} has: {shorten_names(unknown)}; "
            "correct the format, or save only the network that is meant"
        )
    return backbone, heads, left_out
