"""Findings of the checks of `bingo doctor`."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

GB = 10**9


@dataclass(frozen=True)
class Finding:
    """One result of a check."""

    status: Literal["ok", "note", "fail"]
    """`fail`: a study would fail; `note`: a study runs, but with a limitation."""
    what: str
    remedy: str = ""


Check = Callable[[], Iterator[Finding]]
