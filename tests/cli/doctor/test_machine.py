"""Findings on machines that lack something; what a machine has is pretended."""

import errno
import fcntl
import shutil
import subprocess
import sys
from collections import namedtuple
from importlib import metadata

import faiss
import pytest
import torch

from bingo.cli.doctor import diagnose, examine, machine
from bingo.cli.doctor.finding import Finding
from bingo.data import decode as decode_module
from bingo.data.decode import BadImageError, decode

Usage = namedtuple("Usage", "total used free")


def found(check, *arguments):
    return [(finding.status, finding.what) for finding in check(*arguments)]


def installed(monkeypatch, **packages):
    """Pretend that these packages are pinned and installed: {name: (pinned, installed or None)}."""

    def version(name):
        if packages[name][1] is None:
            raise metadata.PackageNotFoundError(name)
        return packages[name][1]

    pins = [f"{name}=={pinned}" for name, (pinned, _) in packages.items()]
    monkeypatch.setattr(metadata, "requires", lambda _: [*pins, "pytest==9.2.0; extra == 'dev'"])
    monkeypatch.setattr(metadata, "version", version)


def test_pinned_packages_are_fine_whatever_their_build_others_are_noted_and_missing_ones_fail(monkeypatch):
    installed(monkeypatch, torch=("2.15.0", "2.15.0+cu132"), numpy=("2.4.6", "2.4.6"))
    ((status, what),) = found(machine.packages)
    assert (status, "2 of 2" in what) == ("ok", True)
    installed(monkeypatch, torch=("2.15.0", "2.12.0"), numpy=("2.4.6", None), h5py=("3.16.0", "3.16.0"))
    other, missing, last = machine.packages()
    assert (other.status, other.what.startswith("torch 2.12.0 "), other.remedy) == (
        "note", True, "pip install torch==2.15.0",
    )  # fmt: skip
    assert (missing.status, missing.remedy) == ("fail", "pip install numpy==2.4.6")
    assert "1 of 3" in last.what


def test_a_project_that_is_not_installed_has_no_pins(monkeypatch):
    def missing(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "requires", missing)
    assert [status for status, _ in found(machine.packages)] == ["note"]


def test_little_disk_fails_and_little_shared_memory_is_noted(monkeypatch, tmp_path):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(64 * 2**20, 0, 10**8))
    space, _, memory = machine.disk(tmp_path)
    assert (space.status, space.what[:6]) == ("fail", "0.1 GB")
    assert str(tmp_path) in space.what
    assert (memory.status, memory.what[:6]) == ("note", "0.1 GB")


def test_a_file_system_without_locks_fails(monkeypatch, tmp_path):
    def refuse(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    _, (status, what), _ = found(machine.disk, tmp_path)
    assert (status, "No locks available" in what) == ("fail", True)


def on_gpus(monkeypatch, count):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)


@pytest.mark.parametrize(
    ("gpus", "faiss_gpus", "status"), [(2, 2, "ok"), (2, 1, "note"), (2, None, "note"), (0, 0, "ok"), (0, None, "ok")]
)
def test_a_faiss_that_sees_fewer_gpus_than_torch_is_noted(monkeypatch, gpus, faiss_gpus, status):
    on_gpus(monkeypatch, gpus)
    monkeypatch.setattr(faiss, "get_num_gpus", lambda: faiss_gpus, raising=False)
    monkeypatch.setattr(faiss, "StandardGpuResources", object, raising=False)
    if faiss_gpus is None:  # built without them
        monkeypatch.delattr(faiss, "StandardGpuResources")
    ((said, what),) = found(machine.search)
    assert (said, f"sees {faiss_gpus or 0} GPUs" in what) == (status, True)


def test_a_format_that_cannot_be_decoded_fails_and_the_others_are_fine(monkeypatch):
    on_gpus(monkeypatch, 0)
    assert found(machine.decoders) == [("ok", "decodes JPEG, PNG, WebP, GIF")]

    def without_webp(content):
        if content.startswith(b"RIFF"):
            raise BadImageError("no decoder")
        # A decoder that gives other colours is as bad as none.
        return decode(content).flip(0) if content.startswith(b"GIF") else decode(content)

    monkeypatch.setattr(decode_module, "decode", without_webp)
    *broken, working = found(machine.decoders)
    assert [(status, what.split()[0]) for status, what in broken] == [("fail", "WebP"), ("fail", "GIF")]
    assert working == ("ok", "decodes JPEG, PNG")


@pytest.mark.parametrize(
    ("driver", "devices", "status"),
    [(None, [], "note"), ("nvidia-smi", [], "fail"), ("nvidia-smi", ["GPU-1"], "note")],
)
def test_gpus_that_torch_cannot_use_are_found(monkeypatch, driver, devices, status):
    on_gpus(monkeypatch, 0)
    monkeypatch.setattr(shutil, "which", lambda _: driver)
    monkeypatch.setattr(machine, "visible_devices", lambda: devices)
    ((said, what),) = found(machine.gpus)
    assert (said, "nvidia-smi" in what) == (status, driver is not None)


def test_each_gpu_is_described(monkeypatch):
    properties = namedtuple("Properties", "name total_memory major minor")("H100", 80 * 10**9, 9, 0)
    on_gpus(monkeypatch, 2)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: properties)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: True)
    monkeypatch.setattr(shutil, "which", lambda _: "nvidia-smi")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: subprocess.CompletedProcess([], 0, "570.1\n570.1\n"))
    first, second = found(machine.gpus)
    assert first[0] == second[0] == "ok"
    for fact in ("GPU 1: H100", "80 GB", "9.0", "570.1", "bfloat16"):
        assert fact in second[1]


def test_a_check_that_raises_is_a_failure_of_its_own(monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    assert [finding.status for finding in examine(None) if "ModuleNotFoundError" in finding.what] == ["fail"]


def test_a_diagnosis_is_a_line_each_with_remedies_below_and_passes_without_failures():
    findings = [Finding("ok", "all"), Finding("note", "some", "more")]
    assert diagnose(findings) == ("ok    all\nnote  some\n      -> more", True)
    assert diagnose([*findings, Finding("fail", "none", "all of it")])[1] is False
