"""What batch-norm sees of the batches, and what it keeps of them."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from bingo.engine.distributed import Summed, processes
from bingo.errors import BingoError


@contextmanager
def without_running_statistics(network: nn.Module) -> Iterator[None]:
    """Let batch-norm use each batch's statistics, neither reading nor changing its running ones, within the block."""
    layers = [module for module in network.modules() if isinstance(module, _BatchNorm)]
    modes = [(layer.training, layer.track_running_stats) for layer in layers]
    for layer in layers:
        layer.train()
        layer.track_running_stats = False
    try:
        yield
    finally:
        for layer, (training, tracked) in zip(layers, modes, strict=True):
            layer.train(training)
            layer.track_running_stats = tracked


def synchronise_batch_norm(network: nn.Module, device: torch.device) -> None:
    """Let every batch-norm of ``network``, in place, use the statistics of all processes' parts of a batch (SyncBN).

    Names of parameters and buffers stay.

    Raises:
        BingoError: it has layers that do more than batch-norm, as some of timm's networks have.
    """
    for parent in list(network.modules()):
        for name, layer in parent.named_children():
            if not isinstance(layer, _BatchNorm):
                continue
            plain = type(layer) in (nn.BatchNorm1d, nn.BatchNorm2d) and layer.affine and layer.momentum is not None
            if not plain:
                raise BingoError(f"sync_batch_norm: not for a network with {type(layer).__name__}; set it to false")
            synced = (nn.SyncBatchNorm if device.type == "cuda" else SyncedOnCpu)(
                layer.num_features, layer.eps, layer.momentum
            )
            synced.load_state_dict(layer.state_dict())
            synced.requires_grad_(layer.weight.requires_grad).train(layer.training)
            setattr(parent, name, synced.to(device))


class SyncedOnCpu(_BatchNorm):
    """SyncBN for processes without GPUs, which torch's own refuses; they have equal parts of a batch."""

    def _check_input_dim(self, input: Tensor) -> None:
        """Take any (B, C, ...)."""

    def forward(self, input: Tensor) -> Tensor:
        """Normalise (B, C, ...) per channel."""
        if not self.training:
            return super().forward(input)
        axes, shape = [0, *range(2, input.ndim)], [1, -1, *[1] * (input.ndim - 2)]
        x = input.float()
        count = x.numel() // x.shape[1] * processes()
        mean = Summed.apply(x.sum(axes)) / count  # (C,)
        centred = x - mean.view(shape)
        variance = Summed.apply(centred.square().sum(axes)) / count
        if self.track_running_stats:
            assert self.running_mean is not None
            assert self.running_var is not None
            assert self.num_batches_tracked is not None
            assert self.momentum is not None
            with torch.no_grad():
                self.num_batches_tracked.add_(1)
                self.running_mean.lerp_(mean, self.momentum)
                self.running_var.lerp_(variance * count / (count - 1), self.momentum)
        scale = self.weight * (variance + self.eps).rsqrt()
        return (centred * scale.view(shape) + self.bias.view(shape)).to(input.dtype)
