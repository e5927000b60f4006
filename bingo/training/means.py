"""Means of logged values over the steps of an epoch."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


class RunningMeans:
    """Means of logged values, accumulated on the device, because reading a value in every step would stall a GPU."""

    def __init__(self) -> None:
        """Start at zero."""
        self._sums: dict[str, Tensor] = {}
        self._count = 0
        self._finite_steps: Tensor | None = None

    def add(self, values: Mapping[str, Tensor]) -> None:
        """Add the scalars of one step."""
        for name, value in values.items():
            self._sums[name] = self._sums.get(name, torch.zeros_like(value)) + value
        self._count += 1
        # A sum stays non-finite after the first non-finite value, so this counts the steps before it.
        finite = torch.stack(list(self._sums.values())).isfinite().all().long()
        self._finite_steps = finite if self._finite_steps is None else self._finite_steps + finite

    def first_bad_step(self) -> int | None:
        """Return the first step (from 0) with a non-finite value, None if all are finite. Waits for the device."""
        finite = int(self._finite_steps) if self._finite_steps is not None else 0
        return None if finite == self._count else finite

    def read(self) -> dict[str, float]:
        """Return the means so far. Waits for the device."""
        return {name: float(total) / self._count for name, total in self._sums.items()}

    def state_dict(self) -> dict[str, Any]:
        """Return sums and counts."""
        return {"sums": self._sums, "count": self._count, "finite_steps": self._finite_steps}

    def load_state_dict(self, state: Mapping[str, Any], device: torch.device) -> None:
        """Continue from saved sums and counts, on ``device``."""
        self._sums = {name: total.to(device) for name, total in state["sums"].items()}
        self._count = state["count"]
        finite = state["finite_steps"]
        self._finite_steps = None if finite is None else finite.to(device)
