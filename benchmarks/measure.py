"""Timing side by side, peak memory, and rows of the table of results."""

import gc
import multiprocessing
import re
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from bingo.training.device import describe_device, pick_device

Work = Callable[[], Any]
_INSTRUCTIONS = {"AVX512-bf16": "avx512_bf16", "AVX512": "avx512_f", "AVX2": "avx2"}


@dataclass(frozen=True)
class BenchmarkRow:
    """One row of the table. A missing number was not measured, for example because the device was missing."""

    benchmark: str
    unit: str
    """A rate (images/s; higher is better) or a cost (s, MiB; lower is better)."""
    device: str
    goal: str = ""
    """The aim; for `ratio` unless it names another column."""
    ours: float | None = None
    reference: float | None = None
    ratio: float | None = None
    """`ours` / `reference`: the median over repeats."""
    ceiling: float | None = None
    fraction_of_ceiling: float | None = None
    """`ours` / `ceiling`, the median over repeats."""
    ratio_low: float | None = None
    ratio_high: float | None = None
    """Smallest and largest ratio over repeats."""
    repeats: int | None = None


@dataclass(frozen=True)
class Seconds:
    """Wall times in seconds of several pieces of work, one per repeat."""

    times: dict[str, list[float]] = field(default_factory=dict)

    def pick(self, **names: str) -> "Seconds":
        """Return some of the times under other names."""
        return Seconds({new: self.times[old] for new, old in names.items()})

    def row(self, benchmark: str, unit: str, device: str, amount: float | None = None, goal: str = "") -> BenchmarkRow:
        """Return the row that compares `ours` with `reference` and `ceiling`, if measured.

        Args:
            benchmark: name of the row.
            unit: unit of ``amount`` per second, or `s`.
            device: name of the device.
            amount: work of one repeat, for a rate; None for a cost in seconds.
            goal: the aim.
        """
        values = {
            name: [second if amount is None else amount / second for second in times]
            for name, times in self.times.items()
        }
        ratios = _ratios(values, "reference")
        fractions = _ratios(values, "ceiling")
        return BenchmarkRow(
            benchmark,
            unit,
            device,
            goal,
            **{name: statistics.median(repeats) for name, repeats in values.items()},
            ratio=statistics.median(ratios) if ratios else None,
            fraction_of_ceiling=statistics.median(fractions) if fractions else None,
            ratio_low=min(ratios, default=None),
            ratio_high=max(ratios, default=None),
            repeats=len(values["ours"]),
        )


def _ratios(values: Mapping[str, Sequence[float]], other: str) -> list[float]:
    return [ours / theirs for ours, theirs in zip(values["ours"], values.get(other, []), strict=other in values)]


def side_by_side(
    work: Mapping[str, Work], repeats: int, device: torch.device | None = None, warm: bool = False
) -> Seconds:
    """Time pieces of work in turns (A B C A B C ...), after a warm-up turn unless they are ``warm``.

    Turns make the comparison fair on shared machines, whose speed drifts. Work called `reference...` runs with cuDNN's
    default TF32 convolutions; all other work runs in full float32, as this project does.
    """
    times: dict[str, list[float]] = {name: [] for name in work}
    for repeat in range(repeats if warm else repeats + 1):
        for name, do in work.items():
            pick_device()  # turns TF32 off
            torch.backends.cudnn.allow_tf32 = name.startswith("reference")
            seconds = elapsed(do, device)
            if warm or repeat > 0:
                times[name].append(seconds)
    pick_device()
    return Seconds(times)


def repeated(count: int, do: Work) -> Work:
    """Return work that calls ``do`` ``count`` times."""

    def work() -> None:
        for _ in range(count):
            do()

    return work


def elapsed(work: Work, device: torch.device | None = None) -> float:
    """Return the seconds that ``work`` takes, the GPU's part included."""
    gc.collect()
    _wait(device)
    started = time.perf_counter()
    work()
    _wait(device)
    return time.perf_counter() - started


def _wait(device: torch.device | None) -> None:
    if device is not None and device.type == "cuda":
        torch.cuda.synchronize(device)


def peak_mib(prepare: Callable[..., Work], *arguments: Any) -> float:
    """Return the peak growth of memory in MiB while the work that ``prepare(*arguments)`` returns is running.

    It runs in a new process, which has no freed memory to reuse.
    """
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        return pool.apply(_peak_here, (prepare, arguments))


def _peak_here(prepare: Callable[..., Work], arguments: tuple[Any, ...]) -> float:
    work = prepare(*arguments)
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # resets the peak
    before = _memory("VmRSS")
    work()
    return (_memory("VmHWM") - before) / 1024


def _memory(name: str) -> int:
    """Return a field of /proc/self/status in KiB."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(re.search(rf"{name}:\s+(\d+) kB", status)[1])  # type: ignore[index]


def memory_row(benchmark: str, ours: float, reference: float, device: str, goal: str) -> BenchmarkRow:
    """Return the row of two memory peaks in MiB."""
    return BenchmarkRow(benchmark, "MiB", device, goal, ours, reference, ours / reference, repeats=1)


def device_name(device: torch.device | None = None) -> str:
    """Return the GPU's name, or the CPU's name, widest vector instructions and number of threads."""
    device = device or pick_device()
    name = describe_device(device)["hardware"]
    if device.type == "cuda":
        return name
    capabilities = torch.cpu.get_capabilities()
    widest = next((label for label, has in _INSTRUCTIONS.items() if capabilities.get(has)), "no AVX2")
    return f"{name}, {widest}, {torch.get_num_threads()} threads"
