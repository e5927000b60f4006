"""What batch-norm sees of the batches, and what it keeps of them."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

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
    """Let the batch-norms inside ``network``, in place, see all processes' parts of a batch (SyncBN).

    Names of parameters and buffers stay.

    Raises:
        BingoError: there is no GPU, which torch's SyncBN needs, or it has layers that do more than batch-norm, as some
            of timm's networks have.
    """
    if device.type != "cuda":
        raise BingoError("training.sync_batch_norm: works on GPUs alone; set it to false")
    plain = (nn.BatchNorm1d, nn.BatchNorm2d)
    other = [type(m).__name__ for m in network.modules() if isinstance(m, _BatchNorm) and type(m) not in plain]
    if other:
        raise BingoError(f"training.sync_batch_norm: not for a network with {other[0]}; set it to false")
    nn.SyncBatchNorm.convert_sync_batchnorm(network)
