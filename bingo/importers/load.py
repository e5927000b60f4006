"""Load a teacher (backbone and projection head) from a checkpoint of another project."""

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
    """One network of a checkpoint."""

    format: str
    """Format of the checkpoint."""
    part: str
    """Name of the network in the format."""
    spec: Backbone
    """Settings of the backbone."""
    backbone: dict[str, Tensor]
    """State dict that the backbone built from ``spec`` loads strictly."""
    head: dict[str, Tensor]
    """State dict of the projection head with the names of a Sequential; empty without a head."""
    activation: str
    """Activation between the head's layers, ``relu`` or ``gelu``."""
    left_out: list[str]
    """Names in the file, without a common ``module.``, that this network does not need."""


def load_checkpoint(
    path: Path, format: CheckpointFormat | None, part: str | None, architecture: str | None
) -> ImportedNetwork:
    """Load one network of a checkpoint.

    Args:
        path: the file.
        format: format of the checkpoint; None to detect it.
        part: name of the network; None for the one that its authors evaluate.
        architecture: architecture of the backbone; None to detect it.

    Raises:
        BingoError: the file is missing or damaged, contains code, is not of that format, does not have the part, or
            its names, shapes or values do not match a known network.
    """
    contents = read_contents(path)
    detected = detect_format(contents, architecture)
    try:
        chosen = detected if format is None else next(entry for entry in FORMATS if entry.name == format)
        if chosen is None:
            raise ArchitectureMismatchError(f"unknown layout with names {shorten_names(contents.state)}; {TIMM_HINT}")
        parts = {entry.name: entry for entry in find_networks(chosen, contents, architecture)}
        if not parts:
            raise ArchitectureMismatchError(f"is not in the format {chosen.name}; correct the format or remove it")
        if part is not None and part not in parts:
            raise ArchitectureMismatchError(f"has no part '{part}' in the format {chosen.name}{nearest(part, parts)}")
        return import_network(contents, chosen, parts[part or next(iter(parts))], architecture)
    except ArchitectureMismatchError as error:
        hint = f"; it looks like {detected.name}" if detected and format not in (None, detected.name) else ""
        raise BingoError(f"{path}: {error}{hint}") from error


def find_networks(format: Format, contents: CheckpointContents, architecture: str | None) -> list[NetworkLayout]:
    """Return the networks of a file in the given format, the default first; empty if it has another format."""
    networks: dict[str, NetworkLayout] = {}
    for part in format.parts if format.is_native == bool(contents.metadata) else ():
        has_no_prefix = not networks and (STEMS.keys() & contents.state or (architecture or "").startswith(TIMM))
        if any(name.startswith(part.backbone) for name in contents.state) if part.backbone else has_no_prefix:
            networks.setdefault(part.name, part)
    return list(networks.values())


def detect_format(contents: CheckpointContents, architecture: str | None) -> Format | None:
    """Return the format of a checkpoint; None if it is unknown."""
    names = [*contents.state, architecture or ""]

    def matches(format: Format) -> bool:
        shapes = [_shapes_under(prefix, contents) for prefix in format.differing]
        return (
            all(any(re.search(pattern, name) for name in names) for pattern in format.patterns)
            and format.location in ("", contents.location)
            and (not shapes or shapes[0] != shapes[1])
            and bool(find_networks(format, contents, architecture))
        )

    return next(filter(matches, FORMATS), None)


def _shapes_under(prefix: str, contents: CheckpointContents) -> dict[str, torch.Size]:
    return {name.removeprefix(prefix): x.shape for name, x in contents.state.items() if name.startswith(prefix)}


def import_network(
    contents: CheckpointContents, format: Format, part: NetworkLayout, architecture: str | None
) -> ImportedNetwork:
    """Return one network of a checkpoint.

    Raises:
        ArchitectureMismatchError: names, shapes or values do not match a known network.
    """
    state = contents.state
    backbone, heads, left_out = _split_names(state, format, part)
    backbone = name_modules(backbone)
    shapes = {name: state[key].shape for name, key in backbone.items()}
    spec = parse_spec(contents.metadata.get("backbone")) if format.is_native else infer_spec(shapes, architecture)
    if architecture not in (None, spec.architecture):
        raise ArchitectureMismatchError(
            f"is {spec.architecture}, not {architecture}; correct the architecture or remove it"
        )
    if spec.stem == "small" and not format.same_stem:
        raise ArchitectureMismatchError(
            f"the 3x3 first convolution has padding 2 in {format.name}, but 1 in this project; use another network"
        )
    network = blueprint(spec)
    classifier = classifier_prefixes(network)
    left_out += [backbone.pop(name) for name in list(backbone) if name.startswith(classifier)]
    weights = match_weights(network, backbone, state, spec.architecture)
    if len(heads) > 1:
        raise ArchitectureMismatchError(f"has several projection heads ({', '.join(heads)}); save only one of them")
    prefix, head = next(iter(heads.items()), ("", {}))
    activation = contents.metadata.get("activation", part.heads.get(prefix, "relu"))
    layers = build_head(head, state, activation, feature_width(network))
    projection = match_weights(layers, head, state, "projection head")
    return ImportedNetwork(format.name, part.name, spec, weights, projection, activation, left_out)


def _split_names(
    names: Iterable[str], format: Format, part: NetworkLayout
) -> tuple[dict[str, str], dict[str, dict[str, str]], list[str]]:
    """Split names into backbone, heads (both as name in the module: name in the file), and names not needed."""
    backbone: dict[str, str] = {}
    heads: dict[str, dict[str, str]] = {}
    left_out, unknown = [], []
    others = [other for other in format.parts if other.name != part.name and other.backbone]
    unneeded = tuple(prefix for other in others for prefix in (other.backbone, *other.heads, *other.left_out))
    for name in names:
        prefix = next((prefix for prefix in part.heads if name.startswith(prefix)), None)
        if prefix is not None:
            layer = name.removeprefix(prefix)
            heads.setdefault(prefix, {})[layer if "." in layer else f"0.{layer}"] = name  # a single layer has no index
        elif name.startswith((*part.left_out, *format.left_out, *unneeded)):
            left_out.append(name)
        elif name.startswith(part.backbone):
            backbone[name.removeprefix(part.backbone)] = name
        else:
            unknown.append(name)
    if unknown:
        raise ArchitectureMismatchError(
            f"has {len(unknown)} names that no part of the format {format.name} has: {shorten_names(unknown)}; "
            "correct the format, or save only the network to import"
        )
    return backbone, heads, left_out
