"""What a check of `bingo doctor` finds."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

GB = 10**9


@dataclass(frozen=True)
class Finding:
    """One line of the diagnosis."""

    status: Literal["ok", "note", "fail"]
    """`fail`: a study would end by it; `note`: it works, but not as well as it could."""
    what: str
    remedy: str = ""


Check = Callable[[], Iterator[Finding]]
