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


def lines(check, *arguments):
    return [(finding.status, finding.what) for finding in check(*arguments)]


@pytest.fixture
def installed(monkeypatch):
    """Pretend that these packages are pinned and installed: {name: (pinned, installed or None)}."""

    def pretend(**packages):
        def version(name):
            if packages[name][1] is None:
                raise metadata.PackageNotFoundError(name)
            return packages[name][1]

        pins = [f"{name}=={pinned}" for name, (pinned, _) in packages.items()]
        monkeypatch.setattr(metadata, "requires", lambda _: [*pins, "pytest==9.2.0; extra == 'dev'"])
        monkeypatch.setattr(metadata, "version", version)

    return pretend


def test_packages_as_they_are_pinned_are_fine_whatever_their_build(installed):
    installed(torch=("2.15.0", "2.15.0+cu132"), numpy=("2.4.6", "2.4.6"))
    ((status, what),) = lines(machine.packages)
    assert status == "ok"
    assert what.endswith("2 of 2 packages as they are pinned")


def test_another_version_is_noted_and_a_missing_package_fails(installed):
    installed(torch=("2.15.0", "2.12.0"), numpy=("2.4.6", None), h5py=("3.16.0", "3.16.0"))
    first, second, last = machine.packages()
    assert first == Finding(
        "note", "torch 2.12.0 is installed, 2.15.0 is what results were made with", "pip install torch==2.15.0"
    )
    assert second == Finding("fail", "numpy is not installed", "pip install numpy==2.4.6")
    assert last.what.endswith("1 of 3 packages as they are pinned")


def test_a_project_that_is_not_installed_has_no_pins(monkeypatch):
    def missing(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "requires", missing)
    assert [finding.status for finding in machine.packages()] == ["note"]


def test_little_free_disk_fails(monkeypatch, tmp_path):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10**12, 10**12, 10**8))
    first, *_ = machine.disk(tmp_path)
    assert (first.status, first.what) == ("fail", f"0.1 GB of free disk in {tmp_path}")
    assert "snakemake --directory" in first.remedy


def test_a_file_system_without_locks_fails(monkeypatch, tmp_path):
    def refuse(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    assert ("fail", f"{tmp_path} takes no files, or no locks on them (No locks available)") in lines(
        machine.disk, tmp_path
    )


def test_little_shared_memory_is_noted(monkeypatch, tmp_path):
    monkeypatch.setattr(
        shutil, "disk_usage", lambda path: Usage(64 * 2**20 if "shm" in str(path) else 10**12, 0, 10**12)
    )
    *_, last = machine.disk(tmp_path)
    assert (last.status, last.what) == ("note", "0.1 GB of shared memory for loader workers")


@pytest.mark.parametrize("built", [True, False])
def test_a_faiss_that_sees_fewer_gpus_than_torch_is_noted(monkeypatch, built):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(faiss, "get_num_gpus", lambda: 1, raising=False)
    monkeypatch.setattr(faiss, "StandardGpuResources", object, raising=False)
    if not built:
        monkeypatch.delattr(faiss, "StandardGpuResources")
    ((status, what),) = lines(machine.search)
    assert status == "note"
    assert what.endswith("with GPU support, sees 1 GPUs of 2" if built else "without GPU support, sees 0 GPUs of 2")


def test_without_a_gpu_any_faiss_will_do(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert [finding.status for finding in machine.search()] == ["ok"]


def test_a_format_that_cannot_be_decoded_fails_and_the_others_are_told(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert lines(machine.decoders) == [("ok", "decodes JPEG, PNG, WebP, GIF")]

    def without_webp(content):
        if content.startswith(b"RIFF"):
            raise BadImageError("no decoder")
        # A decoder that gives other colours is as bad as none.
        return decode(content).flip(0) if content.startswith(b"GIF") else decode(content)

    monkeypatch.setattr(decode_module, "decode", without_webp)
    assert lines(machine.decoders) == [
        ("fail", "WebP files cannot be decoded"),
        ("fail", "GIF files cannot be decoded"),
        ("ok", "decodes JPEG, PNG"),
    ]


@pytest.mark.parametrize(
    ("driver", "devices", "status", "words"),
    [
        (None, [], "note", "no GPU: networks run on the CPU"),
        ("nvidia-smi", [], "fail", "nvidia-smi is there but shows no GPU that may be used"),
        ("nvidia-smi", ["GPU-1"], "note", "cannot use it"),
    ],
)
def test_gpus_that_torch_cannot_use_are_told_by_what_is_wrong(monkeypatch, driver, devices, status, words):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(shutil, "which", lambda _: driver)
    monkeypatch.setattr(machine, "visible_devices", lambda: devices)
    ((found, what),) = lines(machine.gpus)
    assert found == status
    assert words in what


def test_each_gpu_is_told(monkeypatch):
    properties = namedtuple("Properties", "name total_memory major minor")("H100", 80 * 10**9, 9, 0)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: properties)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: True)
    monkeypatch.setattr(shutil, "which", lambda _: "nvidia-smi")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: subprocess.CompletedProcess([], 0, "570.1\n570.1\n"))
    found = lines(machine.gpus)
    assert [status for status, _ in found] == ["ok", "ok"]
    assert found[1][1].startswith("GPU 1: H100, 80 GB, compute capability 9.0, driver 570.1, CUDA ")
    assert found[1][1].endswith("precision: auto is bfloat16")


def test_a_check_that_breaks_off_is_a_failure_of_its_own(monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    found = [finding for finding in examine(None) if "faiss" in finding.what]
    assert [finding.status for finding in found if "ModuleNotFoundError" in finding.what] == ["fail"]


def test_a_diagnosis_is_a_line_each_with_remedies_below_and_sound_without_failures():
    findings = [Finding("ok", "all"), Finding("note", "some", "more")]
    assert diagnose(findings) == ("ok    all\nnote  some\n      -> more", True)
    assert diagnose([*findings, Finding("fail", "none", "all of it")])[1] is False
