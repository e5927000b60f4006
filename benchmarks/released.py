"""BINGO's released code (haohang96/bingo), one process of it, written plainly: what benchmarks compare with."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def released_loss(
    queries: list[Tensor], keys: list[Tensor], weights: Tensor, queue: Tensor, temperature: float
) -> Tensor:
    """Return the contrastive terms of all student views, the logits of each built anew by clone, repeat and cat.

    Args:
        queries: the student's unit vectors (B, D) of each view.
        keys: the teacher's (B, D) of anchor and positive.
        weights: (views, 2) of the terms.
        queue: (Q, D).
        temperature: tau.
    """
    stacked = torch.stack(keys, dim=1)  # (B, 2, D)
    total = queries[0].new_zeros(())
    for query, share in zip(queries, weights, strict=True):
        positive = torch.einsum("nc,nkc->nk", query, stacked).unsqueeze(-1)  # (B, 2, 1)
        negative = torch.einsum("nc,kc->nk", query, queue.clone().detach())  # (B, Q)
        logits = torch.cat([positive, negative.unsqueeze(1).repeat(1, 2, 1)], dim=-1) / temperature  # (B, 2, 1 + Q)
        labels = torch.zeros(len(query), dtype=torch.long, device=query.device)
        for key in range(2):
            total = total + share[key] * F.cross_entropy(logits[:, key], labels)
    return total


class ReleasedStep:
    """A training step of its objective from the epoch on that has inter pairs."""

    def __init__(self, student: nn.Module, teacher: nn.Module, queue: Tensor, temperature: float, lr: float) -> None:
        """Train ``student`` in place; the teacher's batch-norm is in train mode, as there."""
        self.student, self.teacher = student.train(), teacher.train()
        self.queue, self.temperature, self.place = queue, temperature, 0
        self.optimizer = torch.optim.SGD(student.parameters(), lr, momentum=0.9, weight_decay=1e-4)

    def __call__(self, images: dict[str, Tensor], box: tuple[int, int, int, int]) -> float:
        """Take the step, and return the loss.

        Args:
            images: `anchor`, `positive`, `anchor_target` and `positive_target`: (B, 3, S, S) each.
            box: top, left, bottom, right of what CutMix takes from the positive.
        """
        top, left, bottom, right = box
        mixed = images["anchor"].clone()
        mixed[:, :, top:bottom, left:right] = images["positive"][:, :, top:bottom, left:right]
        kept = 1 - (bottom - top) * (right - left) / mixed.shape[-1] ** 2
        weights = torch.tensor([[0.5, 0.5], [0.5, 0.5], [kept, 1 - kept]]) / 3
        queries = [F.normalize(self.student(view), dim=1) for view in (images["anchor"], images["positive"], mixed)]
        with torch.no_grad():
            keys = [F.normalize(self.teacher(images[f"{name}_target"]), dim=1) for name in ("anchor", "positive")]
        loss = released_loss(queries, keys, weights, self.queue, self.temperature)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.queue[self.place : self.place + len(keys[0])] = keys[0]
        self.place = (self.place + len(keys[0])) % len(self.queue)
        return loss.item()
