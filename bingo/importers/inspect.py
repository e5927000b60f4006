"""Description of a checkpoint and of its use as a teacher."""

import re
from collections import Counter
from pathlib import Path

import yaml
from torch import nn

from bingo.importers.formats import Format
from bingo.importers.load import ImportedNetwork, detect_format, find_networks, import_network
from bingo.importers.networks import COUNTER, TIMM_HINT, ArchitectureMismatchError, blueprint, shorten_names
from bingo.importers.read import CheckpointContents, read_contents
from bingo.models.head import head_from


def describe(path: Path) -> str:
    """Return the contents of a checkpoint, whether it can be a teacher, and the lines to add to a study.

    Raises:
        BingoError: the file is missing or damaged, or contains code.
    """
    contents = read_contents(path)
    lines = [f"{path}: {path.stat().st_size / 1e6:.1f} MB, {len(contents.state)} tensors in {contents.location}"]
    if contents.other_entries:
        lines.append(f"other entries: {shorten_names(contents.other_entries)}")
    format = detect_format(contents, None)
    if format is None:
        lines += [
            f"format: unknown, with names {shorten_names(contents.state)}",
            f"cannot be used; {TIMM_HINT}",
        ]
        return "\n".join(lines)
    matches = [next(name for name in contents.state if re.search(pattern, name)) for pattern in format.patterns]
    lines.append(f"format: {format.name}" + (f", recognised by {', '.join(matches)}" if matches else ""))
    usable: dict[str, ImportedNetwork] = {}
    default = ""
    for part in find_networks(format, contents, None):
        default = default or part.name
        try:
            usable[part.name] = import_network(contents, format, part, None)
            text = _network(usable[part.name], contents)
        except ArchitectureMismatchError as error:
            text = f"cannot be used: {error}"
        lines.append(f"  {part.name}{' (default)' if part.name == default else ''}: {text}")
    lines += _left_out(usable, format)
    lines += _trained_on(contents)
    if not usable:
        return "\n".join([*lines, "cannot be used"])
    first, *more = usable
    entry = {"checkpoint": str(path)} | ({} if first == default else {"part": first})
    lines += ["can be used; in a study:", yaml.safe_dump({"teachers": {_entry_name(path): entry}}, sort_keys=False)]
    lines += [f"to use another of its networks, add part: {' or '.join(more)}"] if more else []
    return "\n".join(lines).rstrip()


def _network(network: ImportedNetwork, contents: CheckpointContents) -> str:
    spec, head = network.spec, head_from(network.head, network.activation)
    backbone = blueprint(spec)
    size = sum(weight.numel() for module in (backbone, head) for weight in module.parameters())
    width = f", width {spec.width:g}" if spec.width != 1 else ""
    text = f"{spec.architecture}{width}, {backbone.dim} features; {_layers(head)}; {size / 1e6:.2f} M parameters"
    if spec.stem == "small" and not contents.metadata:
        text += "; 3x3 first convolution, assumed to have stride 1, padding 1 and no pooling after it"
    if spec.architecture == "timm/efficientnet_b0":
        text += "; if it is TensorFlow's, which has the same shapes, set architecture: timm/tf_efficientnet_b0"
    if any(name.endswith(COUNTER) for name in network.backbone) and not any(COUNTER in name for name in contents.state):
        text += f"; without {COUNTER}, which are set to zero"
    return text


def _trained_on(contents: CheckpointContents) -> list[str]:
    """Return the preprocessing of a checkpoint of this project, which a study must repeat."""
    settings = contents.metadata.get("provenance", {}).get("settings", {}).get("preprocessing")
    if settings is None:
        return []
    values = f"{settings['size']} px, mean {settings['mean']}, std {settings['std']}"
    return [f"trained on {values}: set data.preprocessing to these values"]


def _layers(head: nn.Sequential) -> str:
    if not len(head):
        return "no head"
    kinds = {nn.Linear: "linear {0.in_features}-{0.out_features}", nn.BatchNorm1d: "batch-norm"}
    return "head " + ", ".join(kinds.get(type(layer), type(layer).__name__).format(layer) for layer in head)


def _left_out(usable: dict[str, ImportedNetwork], format: Format) -> list[str]:
    """Return the names that no usable network needs, counted by prefix."""
    names = set.intersection(*(set(network.left_out) for network in usable.values())) if usable else set()
    known = {prefix for part in format.parts for prefix in (part.backbone, *part.heads, *part.left_out)}
    prefixes = sorted(known | set(format.left_out), key=len, reverse=True)
    groups = Counter(next((p for p in prefixes if p and name.startswith(p)), name.split(".")[0]) for name in names)
    counts = [f"{prefix.rstrip('.')} ({count})" for prefix, count in sorted(groups.items())]
    return [f"left out: {', '.join(counts)}"] if counts else []


def _entry_name(path: Path) -> str:
    student = path.absolute().parent.parent.name  # students/<student>/seed-<n>/backbone.safetensors
    stem = student if path.stem == "backbone" else path.name.partition(".")[0]
    return re.sub(r"[^a-z0-9_-]+", "-", stem.lower()).lstrip("_-")[:64] or "teacher"
