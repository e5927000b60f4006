"""One process of BINGO's released code (haohang96/bingo), rewritten plainly as the reference of the benchmarks."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def released_loss(
    queries: list[Tensor], keys: list[Tensor], weights: Tensor, queue: Tensor, temperature: float
) -> Tensor:
    """Return the contrastive terms of all student views; each builds its logits by clone, repeat and cat.

    Args:
        queries: unit vectors of the student, (B, D) per view.
        keys: unit vectors of the teacher for anchor and positive, (B, D) each.
        weights: weights of the terms, (views, 2).
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
    """A training step of the released objective after the epochs without inter pairs."""

    def __init__(self, student: nn.Module, teacher: nn.Module, queue: Tensor, temperature: float, lr: float) -> None:
        """Train ``student`` in place; the teacher's batch norm is in training mode, as in the released code."""
        self.student, self.teacher = student.train(), teacher.train()
        self.queue, self.temperature, self.position = queue, temperature, 0
        self.optimizer = torch.optim.SGD(student.parameters(), lr, momentum=0.9, weight_decay=1e-4)

    def __call__(self, images: dict[str, Tensor], box: tuple[int, int, int, int]) -> float:
        """Take one step and return the loss.

        Args:
            images: `anchor`, `positive`, `anchor_target` and `positive_target`: (B, 3, S, S) each.
            box: top, left, bottom and right of the CutMix box, which shows the positive.
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
        self.queue[self.position : self.position + len(keys[0])] = keys[0]
        self.position = (self.position + len(keys[0])) % len(self.queue)
        return loss.item()
