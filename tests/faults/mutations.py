"""Damage to files of every kind: (file to damage in place, another file of its kind, randomness) -> what was done.

Files written afresh whose checksums fit, with half the precision, say, are called `(valid)`: they are read as they are.
"""

import json

import h5py
import numpy as np

from bingo.artifacts.hdf5 import write_hdf5
from bingo.artifacts.provenance import digest_arrays
from bingo.artifacts.tensors import read_tensors, write_tensors


def replace(path, content):
    """Give ``path`` a new content without touching that of other links to it."""
    path.unlink()
    path.write_bytes(content)


# ---- bytes


def truncated(path, other, rng):
    content = path.read_bytes()
    length = rng.randrange(len(content))
    replace(path, content[:length])
    return f"truncated to {length} of {len(content)} bytes"


def flipped(path, other, rng):
    content = bytearray(path.read_bytes())
    places = [rng.randrange(len(content)) for _ in range(rng.choice((1, 1, 4, 32)))]
    for place in places:
        content[place] ^= 1 << rng.randrange(8)
    replace(path, bytes(content))
    return f"flipped a bit of bytes {places}"


def zeroed(path, other, rng):
    content = bytearray(path.read_bytes())
    start = rng.randrange(len(content))
    length = min(len(content) - start, int(2 ** rng.uniform(0, 14)))
    content[start : start + length] = bytes(length)
    replace(path, bytes(content))
    return f"zeroed {length} bytes from {start}"


def garbled(path, other, rng):
    replace(path, rng.randbytes(rng.randrange(2000)))
    return "random bytes"


def swapped(path, other, rng):
    replace(path, other.read_bytes())
    return "another study's file"


# ---- text


def digit_changed(path, other, rng):
    text = path.read_text()
    places = [place for place, letter in enumerate(text) if letter.isdigit()]
    place = rng.choice(places)
    digit = rng.choice([digit for digit in "0123456789" if digit != text[place]])
    replace(path, (text[:place] + digit + text[place + 1 :]).encode())
    return f"digit {text[place]} at {place} became {digit}"


def line_lost(path, other, rng):
    lines = path.read_text().splitlines(keepends=True)
    lost = lines.pop(rng.randrange(len(lines)))
    replace(path, "".join(lines).encode())
    return f"lost the line {lost!r}"


def words_inserted(path, other, rng):
    text = path.read_text()
    place, word = rng.randrange(len(text)), rng.choice(("nan", "inf", "-", '"', ",", "\t", "x", "{", "\x00", "1e999"))
    replace(path, (text[:place] + word + text[place:]).encode())
    return f"inserted {word!r} at {place}"


_ODD = (None, True, "text", "", -1, 0, 1.5, 10**30, float("nan"), float("inf"), [], [1], {}, {"a": 1})


def tree_changed(root, rng):
    """Return a copy of a JSON tree with one value odd, one key gone or one key too many."""
    root = json.loads(json.dumps(root))
    nodes = [node for node in _nodes(root) if node]
    node = rng.choice(nodes)
    key = rng.choice(list(node) if isinstance(node, dict) else range(len(node)))
    what = rng.choice(("odd", "odd", "gone", "new"))
    if what == "gone":
        del node[key]
    elif what == "new" and isinstance(node, dict):
        key, node["unknown"] = "unknown", rng.choice(_ODD)
    else:
        node[key] = rng.choice(_ODD)
    return root, f"{what}: {key}"


def _nodes(node):
    inner = node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
    own = [node] if isinstance(node, dict | list) else []
    return own + [found for part in inner for found in _nodes(part)]


def json_changed(path, other, rng):
    content, what = tree_changed(json.loads(path.read_text()), rng)
    replace(path, json.dumps(content).encode())
    return what


# ---- arrays and tensors, written afresh with checksums that fit


def array_changed(array, rng):
    """Return an array of another shape or dtype, or with odd values."""
    ways = ["shorter", "longer", "flat", "deeper", "float64", "int8", "text"]
    ways += ["nan", "inf"] if array.dtype.kind == "f" else ["huge", "negative"] if array.dtype.kind == "i" else []
    way = rng.choice(ways)
    changed = array.copy()
    if way == "shorter":
        changed = array[: rng.randrange(max(len(array), 1))]
    elif way == "longer":
        changed = np.concatenate([array, array[:1]])
    elif way == "flat":
        changed = array.reshape(-1) if array.ndim > 1 else array.reshape(1, -1)
    elif way == "deeper":
        changed = array[..., None]
    elif way in ("float64", "int8"):
        changed = np.zeros(array.shape, way) if array.dtype.kind == "S" else np.nan_to_num(array).astype(way)
        way += " (valid)" if np.array_equal(changed, array) else ""
    elif way == "text":
        changed = np.full(array.shape, b"text")
    else:
        value = {"nan": np.nan, "inf": np.inf, "huge": 10**12, "negative": -7}[way]
        changed.reshape(-1)[rng.randrange(array.size)] = value
    return changed, way


def hdf5_changed(path, other, rng):
    with h5py.File(path) as file:
        found = {}
        file.visititems(lambda name, node: found.update({name: node[()]}) if isinstance(node, h5py.Dataset) else None)
        attributes = {name: dict(file[name].attrs) for name in ["/", *(key for key in file if key not in found)]}
    name = rng.choice(sorted(found))
    if rng.random() < 0.15:
        del found[name]
        way = "gone (valid)" if name == "similarity" else "gone"  # which not all bags have
    else:
        found[name], way = array_changed(found[name], rng)
    root = attributes.pop("/")
    if root["kind"] == "bags":
        root["digest"] = digest_arrays(found)
    path.unlink()
    with write_hdf5(
        path, {key: value.item() if hasattr(value, "item") else value for key, value in root.items()}
    ) as file:
        for group, values in attributes.items():
            file.create_group(group).attrs.update(values)
        for dataset, array in found.items():
            file.create_dataset(dataset, data=array)
    return f"{name} {way}"


def tensors_changed(path, other, rng):
    tensors, metadata = read_tensors(path)
    name = rng.choice(sorted(tensors))
    way = rng.choice(("nan", "inf", "shorter", "deeper", "half", "gone", "renamed", "metadata"))
    tensor = tensors.pop(name).clone()
    if way in ("nan", "inf") and tensor.is_floating_point():
        tensor.view(-1)[rng.randrange(tensor.numel())] = float(way)
    elif way == "shorter" and tensor.dim():
        tensor = tensor[:-1].clone()
    elif way == "half":
        tensor = tensor.half()
        way += " (valid)"
    elif way == "metadata":
        metadata, way = tree_changed({key: value for key, value in metadata.items() if key != "checksum"}, rng)
        metadata.pop("digest", None)
        way += " of the metadata (valid)"
    elif way != "renamed":
        tensor, way = tensor[None].clone(), "deeper"
    if way != "gone":
        tensors["renamed" if way == "renamed" else name] = tensor
    path.unlink()
    write_tensors(path, tensors, metadata)
    return f"{name} {way}"


BYTES = (truncated, flipped, flipped, zeroed, garbled, swapped)
TEXT = (digit_changed, line_lost, words_inserted)
