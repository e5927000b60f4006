"""Queue of past embeddings, used as negatives."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Queue(nn.Module):
    """Ring buffer of the last Q embeddings, saved and resumed with the model."""

    keys: Tensor
    """(Q, D) float32 unit vectors."""
    position: Tensor
    """() int64, index of the oldest entry, which is replaced next."""

    def __init__(self, size: int, dim: int) -> None:
        """Fill the queue with random unit vectors from torch's global generator."""
        super().__init__()
        self.register_buffer("keys", F.normalize(torch.randn(size, dim), dim=1))  # (Q, D)
        self.register_buffer("position", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def enqueue(self, keys: Tensor) -> None:
        """Replace the oldest entries by ``keys`` (B, D), in order. B need not divide Q."""
        size = len(self.keys)
        keys = keys[-size:]
        indices = (self.position + torch.arange(len(keys), device=self.keys.device)) % size  # (B,)
        self.keys[indices] = keys.to(self.keys.dtype)
        self.position.copy_((self.position + len(keys)) % size)
