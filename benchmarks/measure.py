"""Timing side by side, peak memory, and the table of what came out."""

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
class Row:
    """One line of the table. Where a number is missing, it was not measured: there was no such device, say."""

    benchmark: str
    unit: str
    """A rate (images/s), of which more is better, or a cost (s, MiB), of which less is."""
    device: str
    goal: str = ""
    """What was aimed at, of `ratio` where nothing else is said."""
    ours: float | None = None
    reference: float | None = None
    ratio: float | None = None
    """`ours` / `reference`, the median over repeats."""
    ceiling: float | None = None
    fraction_of_ceiling: float | None = None
    """`ours` / `ceiling`, the median over repeats."""
    ratio_low: float | None = None
    ratio_high: float | None = None
    """The least and the greatest ratio of all repeats."""
    repeats: int | None = None


@dataclass(frozen=True)
class Seconds:
    """Wall times of several pieces of work, repeat by repeat."""

    times: dict[str, list[float]] = field(default_factory=dict)

    def pick(self, **names: str) -> "Seconds":
        """Return some of the works' times, under other names."""
        return Seconds({new: self.times[old] for new, old in names.items()})

    def row(self, benchmark: str, unit: str, device: str, amount: float | None = None, goal: str = "") -> Row:
        """Return the line of `ours` against `reference` and `ceiling`, where there are any.

        Args:
            benchmark: its name.
            unit: of ``amount`` per second, or `s`.
            device: what computed.
            amount: work done in one repeat, for a rate; None for a cost in seconds.
            goal: what was aimed at.
        """
        found = {
            name: [second if amount is None else amount / second for second in times]
            for name, times in self.times.items()
        }
        ratios = _ratios(found, "reference")
        fractions = _ratios(found, "ceiling")
        return Row(
            benchmark,
            unit,
            device,
            goal,
            **{name: statistics.median(values) for name, values in found.items()},
            ratio=statistics.median(ratios) if ratios else None,
            fraction_of_ceiling=statistics.median(fractions) if fractions else None,
            ratio_low=min(ratios, default=None),
            ratio_high=max(ratios, default=None),
            repeats=len(found["ours"]),
        )


def _ratios(found: Mapping[str, Sequence[float]], other: str) -> list[float]:
    return [ours / theirs for ours, theirs in zip(found["ours"], found.get(other, []), strict=other in found)]


def side_by_side(
    work: Mapping[str, Work], repeats: int, device: torch.device | None = None, warm: bool = False
) -> Seconds:
    """Time pieces of work in turn, A B C A B C ..., after one turn that is not counted, unless they are ``warm``.

    So a machine whose speed drifts, as shared ones do, is as fast for one as for the other. What is called a reference
    has cuDNN's usual settings, under which it may round float32; the rest has those of this project.
    """
    times: dict[str, list[float]] = {name: [] for name in work}
    for repeat in range(repeats if warm else repeats + 1):
        for name, do in work.items():
            pick_device()  # which lets cuDNN round nothing
            torch.backends.cudnn.allow_tf32 = name.startswith("reference")
            seconds = elapsed(do, device)
            if warm or repeat > 0:
                times[name].append(seconds)
    pick_device()
    return Seconds(times)


def repeated(count: int, do: Work) -> Work:
    """Return the work of doing so ``count`` times."""

    def work() -> None:
        for _ in range(count):
            do()

    return work


def elapsed(work: Work, device: torch.device | None = None) -> float:
    """Return the seconds that ``work`` takes, until a GPU has done it too."""
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
    """Return by how many MiB memory grows, at most, while the work runs that ``prepare(*arguments)`` returns.

    A process of its own does it, so that nothing that ran before has left memory to take from.
    """
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        return pool.apply(_peak_here, (prepare, arguments))


def _peak_here(prepare: Callable[..., Work], arguments: tuple[Any, ...]) -> float:
    work = prepare(*arguments)
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak so far is forgotten
    before = _memory("VmRSS")
    work()
    return (_memory("VmHWM") - before) / 1024


def _memory(name: str) -> int:
    """Return one of the kernel's figures of this process, in KiB."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(re.search(rf"{name}:\s+(\d+) kB", status)[1])  # type: ignore[index]


def memory_row(benchmark: str, ours: float, reference: float, device: str, goal: str) -> Row:
    """Return the line of two peaks in MiB."""
    return Row(benchmark, "MiB", device, goal, ours, reference, ours / reference, repeats=1)


def device_name(device: torch.device | None = None) -> str:
    """Return what computes: a GPU's name, or the CPU's, its widest instructions, and how many of its cores."""
    device = device or pick_device()
    name = describe_device(device)["hardware"]
    if device.type == "cuda":
        return name
    found = torch.cpu.get_capabilities()
    widest = next((label for label, has in _INSTRUCTIONS.items() if found.get(has)), "no AVX2")
    return f"{name}, {widest}, {torch.get_num_threads()} threads"
