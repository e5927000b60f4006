"""Say what a file of weights holds, and how to use it."""

import re
from collections import Counter
from pathlib import Path

import yaml
from torch import nn

from bingo.importers.formats import Format
from bingo.importers.load import ImportedNetwork, detect_formats, find_networks, import_network
from bingo.importers.networks import COUNTER, TIMM_HINT, ArchitectureMismatchError, blueprint, shorten_names
from bingo.importers.read import CheckpointContents, read_contents
from bingo.models.head import head_from


def describe(path: Path) -> str:
    """Return what a file of weights holds, whether it can serve as a teacher, and the lines of a study that say so.

    Raises:
        BingoError: the file is missing, damaged, or would have to be executed.
    """
    contents = read_contents(path)
    lines = [f"{path}: {path.stat().st_size / 1e6:.1f} MB, {len(contents.state)} tensors in {contents.place}"]
    if contents.beside:
        lines.append(f"beside them: {shorten_names(contents.beside)}")
    format = detect_formats(contents, None)
    if format is None:
        lines += [
            f"format: unknown, with names {shorten_names(contents.state)}",
            f"cannot be used as it stands; {TIMM_HINT}",
        ]
        return "\n".join(lines)
    marks = [next(name for name in contents.state if re.search(mark, name)) for mark in format.marks]
    lines.append(f"format: {format.name}" + (f", detect_formats by {', '.join(marks)}" if marks else ""))
    usable: dict[str, ImportedNetwork] = {}
    default = ""
    for part in find_networks(format, contents, None):
        default = default or part.name
        try:
            usable[part.name] = import_network(contents, format, part, None)
            said = _network(usable[part.name], contents)
        except ArchitectureMismatchError as error:
            said = f"cannot be used: {error}"
        lines.append(f"  {part.name}{' (default)' if part.name == default else ''}: {said}")
    lines += _left_out(usable, format)
    lines += _trained_on(contents)
    if not usable:
        return "\n".join([*lines, "cannot be used as it stands"])
    first, *more = usable
    entry = {"checkpoint": str(path)} | ({} if first == default else {"part": first})
    lines += ["can be used; in a study:", yaml.safe_dump({"teachers": {_entry_name(path): entry}}, sort_keys=False)]
    lines += [f"and for another of its networks, part: {' or '.join(more)}"] if more else []
    return "\n".join(lines).rstrip()


def _network(found: ImportedNetwork, contents: CheckpointContents) -> str:
    spec, head = found.spec, head_from(found.head, found.activation)
    backbone = blueprint(spec)
    size = sum(weight.numel() for network in (backbone, head) for weight in network.parameters())
    width = f", width {spec.width:g}" if spec.width != 1 else ""
    said = f"{spec.architecture}{width}, {backbone.dim} features; {_layers(head)}; {size / 1e6:.2f} M parameters"
    if spec.stem == "small" and not contents.metadata:
        said += "; 3x3 first convolution, taken for stride 1, padding 1 and no pooling after it"
    if spec.architecture == "timm/efficientnet_b0":
        said += "; if it is TensorFlow's, which has the same shapes, give architecture: timm/tf_efficientnet_b0"
    if any(name.endswith(COUNTER) for name in found.backbone) and not any(COUNTER in name for name in contents.state):
        said += f"; without {COUNTER}, which are set to zero"
    return said


def _trained_on(contents: CheckpointContents) -> list[str]:
    """Say for a file of this project what its images were like, which a study that uses it must repeat."""
    settings = contents.metadata.get("provenance", {}).get("settings", {}).get("preprocessing")
    if settings is None:
        return []
    return [
        f"trained on {settings['size']} px, mean {settings['mean']}, std {settings['std']}: set data.preprocessing so"
    ]


def _layers(head: nn.Sequential) -> str:
    if not len(head):
        return "no head"
    kinds = {nn.Linear: "linear {0.in_features}-{0.out_features}", nn.BatchNorm1d: "batch-norm"}
    return "head " + ", ".join(kinds.get(type(layer), type(layer).__name__).format(layer) for layer in head)


def _left_out(usable: dict[str, ImportedNetwork], format: Format) -> list[str]:
    """Say what no usable network needs, by prefix."""
    names = set.intersection(*(set(found.left_out) for found in usable.values())) if usable else set()
    known = {prefix for part in format.parts for prefix in (part.backbone, *part.heads, *part.left_out)}
    prefixes = sorted(known | set(format.left_out), key=len, reverse=True)
    groups = Counter(next((p for p in prefixes if p and name.startswith(p)), name.split(".")[0]) for name in names)
    said = [f"{prefix.rstrip('.')} ({count})" for prefix, count in sorted(groups.items())]
    return [f"left out: {', '.join(said)}"] if said else []


def _entry_name(path: Path) -> str:
    student = path.absolute().parent.parent.name  # students/<student>/seed-<n>/backbone.safetensors
    stem = student if path.stem == "backbone" else path.name.partition(".")[0]
    return re.sub(r"[^a-z0-9_-]+", "-", stem.lower()).lstrip("_-")[:64] or "teacher"
