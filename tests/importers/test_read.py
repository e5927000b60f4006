"""Files that are refused: each in one line that begins with its path, and never executed."""

import argparse
import os
import pathlib

import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import HealthCheck, given, strategies
from hypothesis import settings as options
from torch import nn

from bingo.errors import BingoError
from bingo.importers.inspect import describe
from bingo.importers.load import load_checkpoint
from bingo.models.backbone import build_backbone
from bingo.models.checkpoint import write_teacher
from bingo.study.sections import Backbone

from .source_networks import settings, small18, training, under


class Attack:
    """Makes a file that runs a program when it is unpickled."""

    def __init__(self, created):
        self.created = created

    def __reduce__(self):
        return os.mkdir, (str(self.created),)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_malicious_pickle_is_not_executed(zipped, path, moco_state, tmp_path, refusal):
    created = tmp_path / "attacked"
    root = training(under("module.", moco_state), extra=Attack(created))
    torch.save(root, path, _use_new_zipfile_serialization=zipped)
    assert "posix.mkdir" in refusal(path)
    with pytest.raises(BingoError, match=r"posix\.mkdir"):
        describe(path)
    assert not created.exists()
    torch.load(path, weights_only=False)
    assert created.exists()  # else nothing was tested


@pytest.mark.parametrize(
    ("value", "wanted"),
    [(np.float64(1), "numpy"), (pathlib.PurePosixPath("x"), "pathlib"), (nn.Linear(2, 2), "Linear")],
)
def test_other_classes_than_settings_are_refused_by_name(value, wanted, path, moco_state, refusal):
    torch.save(training(moco_state, extra=value), path)
    assert wanted in refusal(path)


def test_settings_are_allowed_while_a_file_is_read_and_no_longer(path, moco_state):
    torch.save(training(moco_state, extra=settings()), path)
    before = torch.serialization.get_safe_globals()
    load_checkpoint(path, None, None, None)
    assert set(torch.serialization.get_safe_globals()) == set(before)
    assert argparse.Namespace not in before


@pytest.mark.parametrize("name", ["weights.pth", "weights.safetensors"])
@pytest.mark.parametrize(
    "content", [None, b"", b"\x80", b"<html>not found</html>", bytes(range(256)) * 9, b"PK\x03\x04" + bytes(99)]
)
def test_files_of_another_kind_are_refused(name, content, tmp_path, refusal):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    refusal(path)
    with pytest.raises(BingoError, match=f"^{path}: "):
        describe(path)


def test_folders_and_files_without_rights_are_refused(path, refusal, monkeypatch):
    def denied(*_arguments):
        raise PermissionError(13, "Permission denied")

    refusal(path.parent)
    path.touch()
    monkeypatch.setattr(torch, "load", lambda *_args, **_options: open(path.parent / "x", opener=denied))  # noqa: SIM115
    refusal(path)


@pytest.mark.parametrize("root", [{}, [], 3, {"epoch": 1}, {"state_dict": {}}, {"teacher": {}}, {"model": {"a": 1}}])
def test_a_file_without_weights_is_refused(root, path, refusal):
    torch.save(root, path)
    refusal(path)


@pytest.mark.parametrize("name", ["encoder_q.\x1b[31mred", "\ud800", "two\nlines"])
def test_names_that_would_garble_a_terminal_are_refused(name, path, moco_state, refusal):
    torch.save(training(moco_state | {name: torch.zeros(2)}), path)
    assert name not in refusal(path)


@pytest.fixture(scope="session")
def whole_files(tmp_path_factory):
    """The bytes of one small file of each kind, by its name."""
    folder, state = tmp_path_factory.mktemp("whole"), small18(1).state_dict()
    torch.save(training(under("module.encoder_q.", state), args=settings()), folder / "zip.pth")
    torch.save(training(state, args=settings()), folder / "old.pth", _use_new_zipfile_serialization=False)
    safetensors.torch.save_file(state, folder / "plain.safetensors")
    spec = Backbone(architecture="resnet18", width=1 / 64)
    write_teacher(folder / "own.safetensors", spec, build_backbone(spec).state_dict(), {}, {})
    for path in folder.iterdir():
        assert load_checkpoint(path, None, None, None).spec.architecture == "resnet18"
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.slow
@options(max_examples=50, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    name=strategies.sampled_from(["zip.pth", "old.pth", "plain.safetensors", "own.safetensors"]),
    where=strategies.floats(0, 1),
    near_the_start=strategies.booleans(),
    flips=strategies.lists(strategies.integers(1, 255), max_size=4),
    cut=strategies.booleans(),
)
def test_damaged_bytes_raise_only_errors_that_name_the_file(
    name, where, near_the_start, flips, cut, whole_files, tmp_path
):
    content = bytearray(whole_files[name])
    position = int(where * (2000 if near_the_start else len(content) - 1))
    for i, flip in enumerate(flips):
        content[(position + i) % len(content)] ^= flip
    path = tmp_path / name
    path.write_bytes(content[: position if cut else None])
    for read in (describe, lambda path: load_checkpoint(path, None, None, None)):
        try:
            read(path)
        except BingoError as error:
            assert str(error).startswith(f"{path}: ")  # noqa: PT017


@pytest.mark.parametrize("name", ["zip.pth", "own.safetensors"])
def test_a_flipped_bit_is_found_if_the_file_has_checksums(name, whole_files, tmp_path, refusal):
    content, path = bytearray(whole_files[name]), tmp_path / name
    path.write_bytes(content)
    weights = load_checkpoint(path, None, None, None).backbone["conv1.weight"]
    content[content.index(weights.numpy().tobytes())] ^= 1
    path.write_bytes(content)
    refusal(path)
