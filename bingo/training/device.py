"""Select the device and the precision to compute in."""

import platform
from contextlib import AbstractContextManager, suppress
from pathlib import Path

import torch

from bingo.errors import BingoError
from bingo.study.sections import Precision, Training


def pick_device(local_rank: int = 0) -> torch.device:
    """Return the GPU with index ``local_rank``, or the CPU if the machine has no GPU.

    Raises:
        BingoError: the machine has GPUs, but none with index ``local_rank``.
    """
    torch.backends.cudnn.allow_tf32 = False  # float32 means float32 on every device
    if not torch.cuda.is_available():
        return torch.device("cpu")
    if local_rank >= torch.cuda.device_count():
        raise BingoError(
            f"process {local_rank + 1} of this machine has no GPU, there are {torch.cuda.device_count()}; start fewer"
        )
    device = torch.device("cuda", local_rank)
    torch.cuda.set_device(device)
    return device


def resolve_precision(precision: Precision, device: torch.device) -> torch.dtype:
    """Return autocast's dtype. `auto` is bfloat16 if the hardware supports it natively (AVX512-bf16, AMX, GPUs)."""
    if precision == "auto":
        if device.type == "cuda":
            native = torch.cuda.is_bf16_supported(including_emulation=False)
        else:
            native = _has_bf16_instructions()
        return torch.bfloat16 if native else torch.float32
    return torch.bfloat16 if precision == "bfloat16" else torch.float32


def describe_machine(training: Training, device: torch.device) -> dict[str, str]:
    """Return the device properties that affect a training's result, for provenance and the identity of its state."""
    return {
        "device": device.type,
        "precision": str(resolve_precision(training.precision, device)).removeprefix("torch."),
    }


def describe_device(device: torch.device) -> dict[str, str]:
    """Return the device type and hardware name, for provenance and reports."""
    if device.type == "cuda":
        return {"device": "cuda", "hardware": torch.cuda.get_device_name(device)}
    return {"device": device.type, "hardware": _cpu_name()}


def autocast(dtype: torch.dtype, device: torch.device) -> AbstractContextManager[None]:
    """Return the autocast context for networks; disabled for float32."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=dtype == torch.bfloat16)


def _cpu_name() -> str:
    with suppress(OSError):  # the file exists only on Linux
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return value.strip()
    return platform.processor() or platform.machine()


def _has_bf16_instructions() -> bool:
    # oneDNN also emulates bf16 on plain AVX512, slower than float32.
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
