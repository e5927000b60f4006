"""The contrastive loss of one `official` step, forward and backward, on precomputed embeddings."""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.measure import BenchmarkRow, Work, device_name, memory_row, peak_mib, repeated, side_by_side
from benchmarks.released import released_loss
from bingo.losses.info_nce import info_nce, queue_logsumexp
from bingo.training.device import pick_device

BATCH, DIM, QUEUE, TEMPERATURE, KEPT = 256, 128, 65_536, 0.2, 0.7
WEIGHTS = torch.tensor([[0.5, 0.5], [0.5, 0.5], [KEPT, 1 - KEPT]]) / 3
"""Weights of the student's three views (rows) and the teacher's two (columns)."""


def rows() -> Iterator[BenchmarkRow]:
    """Measure the time, and on a CPU the peak memory."""
    device = pick_device()
    work = {name: prepare(name, device) for name in ("ours", "reference", "ceiling")}
    steps = 1 if device.type == "cpu" else 50  # per repeat; the GPU is synchronised at its end
    seconds = side_by_side({name: repeated(steps, do) for name, do in work.items()}, 5, device)
    yield seconds.row("loss", "steps/s", device_name(device), steps, goal="ratio >= 4")
    if device.type == "cpu":
        ours, reference = (peak_mib(prepare, name, device) for name in ("ours", "reference"))
        yield memory_row("loss-memory", ours, reference, device_name(device), "ratio <= 0.2")


def prepare(name: str, device: torch.device) -> Work:
    """Return the work to time."""
    queries, keys, queue = embeddings(device)
    if name == "ceiling":  # only the two matrix products of each view
        return lambda: [(query.detach() @ queue.T) @ queue for query in queries]
    loss = {"ours": our_loss, "reference": released_loss}[name]
    return lambda: loss(queries, keys, WEIGHTS.to(device), queue, TEMPERATURE).backward()


def embeddings(
    device: torch.device, batch: int = BATCH, size: int = QUEUE
) -> tuple[list[Tensor], list[Tensor], Tensor]:
    """Return unit vectors: three queries that require gradients, two keys, and a queue."""
    generator = torch.Generator().manual_seed(0)

    def units(count: int) -> Tensor:
        return F.normalize(torch.randn(count, DIM, generator=generator), dim=1).to(device)

    return [units(batch).requires_grad_() for _ in range(3)], [units(batch) for _ in range(2)], units(size)


def our_loss(queries: list[Tensor], keys: list[Tensor], weights: Tensor, queue: Tensor, temperature: float) -> Tensor:
    """Return the loss of `released_loss`, computed as in `bingo.methods.bingo`."""
    terms = []
    for query, shares in zip(queries, weights, strict=True):
        negatives = queue_logsumexp(query, queue, temperature)
        terms += [share * info_nce(query, key, negatives, temperature) for key, share in zip(keys, shares, strict=True)]
    return torch.stack(terms).sum()
