"""Frozen residual blocks on NVIDIA GPUs: what follows a convolution is done in its own pass over memory."""

from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models import resnet

_ALIGNED = 8
"""cuDNN's fused convolutions read channels in blocks of so many."""


class FusedBlock(nn.Module):
    """A ResNet's block whose convolutions add bias and shortcut, and apply ReLU, before they write their result.

    By themselves these steps read and write their maps anew: in a distillation from a wide ResNet-50, on an H200, they
    took as long as all convolutions of the forward passes.
    """

    def __init__(self, block: resnet.BasicBlock | resnet.Bottleneck) -> None:
        """Take over a block whose batch-norm is folded into its convolutions."""
        super().__init__()
        self.convolutions = nn.ModuleList(conv for name, conv in block.named_children() if name.startswith("conv"))
        self.shortcut: nn.Module | None = None
        if block.downsample is not None:
            self.shortcut = block.downsample[0]
            last = self.convolutions[-1]
            last.bias = nn.Parameter(last.bias + self.shortcut.bias, requires_grad=False)  # type: ignore[operator]
            self.shortcut.bias = None

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) on a CUDA device as the block does, in autocast's dtype or its own; no gradients flow."""
        added = x if self.shortcut is None else self.shortcut(x)
        for convolution in self.convolutions[:-1]:
            x = torch.cudnn_convolution_relu(*_operands(convolution, x))
        x, weight, *rest = _operands(self.convolutions[-1], x)
        return torch.cudnn_convolution_add_relu(x, weight, added.to(x.dtype), 1.0, *rest)


def _operands(convolution: nn.Module, x: Tensor) -> tuple[Any, ...]:
    """Return what cuDNN's functions take, in autocast's dtype, which does not know them."""
    assert isinstance(convolution, nn.Conv2d)
    dtype = torch.get_autocast_dtype("cuda") if torch.is_autocast_enabled("cuda") else x.dtype
    assert convolution.bias is not None
    weight, bias = convolution.weight.to(dtype), convolution.bias.to(dtype)
    return x.to(dtype), weight, bias, convolution.stride, convolution.padding, convolution.dilation, convolution.groups


def fuse_blocks(network: nn.Module) -> None:
    """Put a `FusedBlock` in the place of every residual block, in place, that is folded and wide enough."""
    for parent in list(network.modules()):
        for name, block in parent.named_children():
            if isinstance(block, resnet.BasicBlock | resnet.Bottleneck) and _fusible(block):
                setattr(parent, name, FusedBlock(block))


def _fusible(block: nn.Module) -> bool:
    convolutions = [module for module in block.modules() if isinstance(module, nn.Conv2d)]
    folded = all(conv.bias is not None for conv in convolutions)
    return folded and all(conv.in_channels % _ALIGNED == conv.out_channels % _ALIGNED == 0 for conv in convolutions)
