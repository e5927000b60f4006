"""Control batch norm's statistics: ignore the running ones, or synchronise processes."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from bingo.errors import BingoError


@contextmanager
def without_running_statistics(network: nn.Module) -> Iterator[None]:
    """Make batch norm use batch statistics within the block, without reading or updating the running statistics."""
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
    """Convert the batch norms in ``network`` to SyncBatchNorm, in place. Names of parameters and buffers stay.

    Raises:
        BingoError: ``device`` is not a GPU, which SyncBatchNorm needs, or the network has layers that combine batch
            norm with other operations, as some timm models do.
    """
    if device.type != "cuda":
        raise BingoError("training.sync_batch_norm: works only on GPUs; set it to false")
    plain = (nn.BatchNorm1d, nn.BatchNorm2d)
    other = [type(m).__name__ for m in network.modules() if isinstance(m, _BatchNorm) and type(m) not in plain]
    if other:
        raise BingoError(f"training.sync_batch_norm: does not support {other[0]} layers; set it to false")
    nn.SyncBatchNorm.convert_sync_batchnorm(network)
