"""What batch-norm keeps of the batches it sees."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


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
