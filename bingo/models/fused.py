"""Fused residual blocks for frozen networks on NVIDIA GPUs."""

from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models import resnet

_ALIGNED = 8
"""The channel counts of cuDNN's fused convolutions must be multiples of this."""


class FusedBlock(nn.Module):
    """A ResNet block whose convolution kernels also add bias and shortcut and apply ReLU.

    Unfused, each of these steps reads and writes the whole feature map. In a distillation from a wide ResNet-50 on an
    H200, they took as long as all convolutions of the forward passes.
    """

    def __init__(self, block: resnet.BasicBlock | resnet.Bottleneck) -> None:
        """Fuse ``block``, whose batch norm is already folded into its convolutions."""
        super().__init__()
        self.convolutions = nn.ModuleList(conv for name, conv in block.named_children() if name.startswith("conv"))
        self.shortcut: nn.Module | None = None
        if block.downsample is not None:
            self.shortcut = block.downsample[0]
            last = self.convolutions[-1]
            last.bias = nn.Parameter(last.bias + self.shortcut.bias, requires_grad=False)  # type: ignore[operator]
            self.shortcut.bias = None

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C', H', W') on a CUDA device, in autocast's or the input's dtype; no gradients."""
        residual = x if self.shortcut is None else self.shortcut(x)  # (B, C', H', W')
        for convolution in self.convolutions[:-1]:
            x = torch.cudnn_convolution_relu(*_operands(convolution, x))
        x, weight, *rest = _operands(self.convolutions[-1], x)
        return torch.cudnn_convolution_add_relu(x, weight, residual.to(x.dtype), 1.0, *rest)


def _operands(convolution: nn.Module, x: Tensor) -> tuple[Any, ...]:
    """Return the arguments of cuDNN's functions, cast explicitly because autocast does not cover these functions."""
    assert isinstance(convolution, nn.Conv2d)
    dtype = torch.get_autocast_dtype("cuda") if torch.is_autocast_enabled("cuda") else x.dtype
    assert convolution.bias is not None
    weight, bias = convolution.weight.to(dtype), convolution.bias.to(dtype)
    return x.to(dtype), weight, bias, convolution.stride, convolution.padding, convolution.dilation, convolution.groups


def fuse_blocks(network: nn.Module) -> None:
    """Replace, in place, every residual block that has folded batch norm and suitable widths with a `FusedBlock`."""
    for parent in list(network.modules()):
        for name, block in parent.named_children():
            if isinstance(block, resnet.BasicBlock | resnet.Bottleneck) and _fusible(block):
                setattr(parent, name, FusedBlock(block))


def _fusible(block: nn.Module) -> bool:
    convolutions = [module for module in block.modules() if isinstance(module, nn.Conv2d)]
    folded = all(conv.bias is not None for conv in convolutions)
    return folded and all(conv.in_channels % _ALIGNED == conv.out_channels % _ALIGNED == 0 for conv in convolutions)
