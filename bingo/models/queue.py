"""The queue of past embeddings that serve as negatives."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Queue(nn.Module):
    """A ring of the last ``size`` embeddings; a persistent buffer, so it is saved and resumed with the model."""

    keys: Tensor
    """(size, dim) float32 unit vectors."""
    position: Tensor
    """() int64: where the next embedding goes."""

    def __init__(self, size: int, dim: int) -> None:
        """Fill the ring with random unit vectors from torch's generator."""
        super().__init__()
        self.register_buffer("keys", F.normalize(torch.randn(size, dim), dim=1))
        self.register_buffer("position", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def enqueue(self, keys: Tensor) -> None:
        """Replace the oldest entries by ``keys`` (B, dim), in order; B need not divide the size."""
        size = len(self.keys)
        keys = keys[-size:]
        slots = (self.position + torch.arange(len(keys), device=self.keys.device)) % size
        self.keys[slots] = keys.to(self.keys.dtype)
        self.position.copy_((self.position + len(keys)) % size)
