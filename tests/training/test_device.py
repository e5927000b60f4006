import platform
from pathlib import Path

import pytest
import torch

from bingo.errors import BingoError
from bingo.training.device import autocast, describe_device, pick_device, resolve_precision

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


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


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_matrix_products_run_in_the_precision_asked_for(dtype):
    a = torch.ones(2, 2)
    with autocast(dtype, CPU):
        assert (a @ a).dtype == dtype
    assert (a @ a).dtype == torch.float32


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
    with pytest.raises(BingoError, match="process 3"):
        pick_device(2)


def test_without_a_gpu_the_cpu_is_picked(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert pick_device(3).type == "cpu"


@pytest.mark.parametrize(
    ("cpuinfo", "expected"),
    [
        ("processor\t: 0\nvendor_id\t: X\nmodel\t\t: 1\nmodel name\t: Some CPU @ 2:1 GHz \n", "Some CPU @ 2:1 GHz"),
        ("processor\t: 0\nBogoMIPS\t: 50.00\n", "arm"),
        (None, "arm"),
    ],
)
def test_a_cpu_is_described_by_its_name_or_by_what_python_knows(cpuinfo, expected, monkeypatch):
    def read(path, **_options):
        if cpuinfo is None:
            raise FileNotFoundError(path)
        return cpuinfo

    monkeypatch.setattr(Path, "read_text", read)
    monkeypatch.setattr(platform, "processor", lambda: "arm")
    assert describe_device(CPU) == {"device": "cpu", "hardware": expected}
