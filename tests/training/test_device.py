import platform
import shutil
import subprocess
from pathlib import Path

import pytest
import torch

from bingo.errors import BingoError
from bingo.study.sections import Training
from bingo.training.device import autocast, describe_device, describe_machine, pick_device, resolve_precision

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.mark.parametrize("device", [CPU, CUDA])
@pytest.mark.parametrize("native", [True, False])
def test_a_named_precision_is_taken_on_any_hardware(device, native, monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": native})
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_options: native)
    assert resolve_precision("float32", device) == torch.float32
    assert resolve_precision("bfloat16", device) == torch.bfloat16


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [
        ({"avx512_bf16": True, "amx_bf16": False}, torch.bfloat16),
        ({"avx512_bf16": False, "amx_bf16": True}, torch.bfloat16),
        ({"avx512_bf16": False, "amx_bf16": False, "avx512_f": True, "avx2": True}, torch.float32),
        ({}, torch.float32),
    ],
)
def test_auto_on_a_cpu_is_bfloat16_where_it_has_the_instructions(capabilities, expected, monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    assert resolve_precision("auto", CPU) == expected


@pytest.mark.parametrize(("native", "expected"), [(True, torch.bfloat16), (False, torch.float32)])
def test_auto_on_a_gpu_does_not_count_emulation(native, expected, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: native or including_emulation)
    assert resolve_precision("auto", CUDA) == expected


def test_auto_agrees_with_the_flags_of_this_cpu():
    cpuinfo = Path("/proc/cpuinfo")
    flags = set(cpuinfo.read_text().split()) if cpuinfo.exists() else set()
    if "avx2" not in flags:
        pytest.skip("no x86 Linux")
    native = bool(flags & {"avx512_bf16", "amx_bf16"})
    assert resolve_precision("auto", CPU) == (torch.bfloat16 if native else torch.float32)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_matrix_products_run_in_the_precision_asked_for(dtype):
    a = torch.ones(2, 2)
    with autocast(dtype, CPU):
        assert (a @ a).dtype == dtype
    assert (a @ a).dtype == torch.float32


def test_a_machine_is_described_by_what_bears_on_results(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_options: True)
    assert describe_machine(Training(precision="float32"), CPU) == {"device": "cpu", "precision": "float32"}
    assert describe_machine(Training(precision="auto"), CUDA) == {"device": "cuda", "precision": "bfloat16"}


def test_a_cpu_is_described_by_the_name_that_lscpu_gives_it():
    if shutil.which("lscpu") is None:
        pytest.skip("no lscpu")
    lines = subprocess.run(["lscpu"], capture_output=True, text=True, check=True, env={"LC_ALL": "C"}).stdout
    names = [line.partition(":")[2].strip() for line in lines.splitlines() if line.startswith("Model name:")]
    if not names or "model name" not in Path("/proc/cpuinfo").read_text():
        pytest.skip("this CPU has no name")
    assert describe_device(CPU) == {"device": "cpu", "hardware": names[0]}


@pytest.mark.parametrize("content", [None, "", "processor\t: 0\nBogoMIPS\t: 50.00\n"])
def test_a_cpu_whose_name_is_nowhere_is_described_by_what_python_knows(content, monkeypatch):
    def read(path, **_options):
        if content is None:
            raise FileNotFoundError(path)
        return content

    monkeypatch.setattr(Path, "read_text", read)
    monkeypatch.setattr(platform, "processor", lambda: "")
    monkeypatch.setattr(platform, "machine", lambda: "riscv64")
    assert describe_device(CPU) == {"device": "cpu", "hardware": "riscv64"}
    monkeypatch.setattr(platform, "processor", lambda: "arm")
    assert describe_device(CPU) == {"device": "cpu", "hardware": "arm"}


def test_a_cpus_name_is_found_among_the_lines_of_cpuinfo(monkeypatch):
    content = "processor\t: 0\nvendor_id\t: X\nmodel\t\t: 1\nmodel name\t: Some CPU @ 2:1 GHz \nmodel name\t: B\n"
    monkeypatch.setattr(Path, "read_text", lambda *_, **_options: content)
    assert describe_device(CPU)["hardware"] == "Some CPU @ 2:1 GHz"


def test_a_gpu_is_described_by_its_name(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"Some {device.type}")
    assert describe_device(CUDA) == {"device": "cuda", "hardware": "Some cuda"}


def test_float32_is_not_rounded_to_tf32(monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    pick_device()
    assert not torch.backends.cudnn.allow_tf32
    assert not torch.backends.cuda.matmul.allow_tf32


def test_each_process_of_a_machine_has_a_gpu_of_its_own(monkeypatch):
    chosen = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    assert [pick_device(0), pick_device(1)] == chosen == [torch.device("cuda", 0), torch.device("cuda", 1)]
    with pytest.raises(BingoError, match="process 3 of this machine has no GPU, there are 2"):
        pick_device(2)


def test_without_a_gpu_the_cpu_is_picked(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert pick_device(3).type == "cpu"
